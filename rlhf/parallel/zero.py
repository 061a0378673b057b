"""DeepSpeed as `accelerate launch` asks for it: ZeRO-2 for SFT and reward models, everything else refused."""

import os
from typing import Any

from rlhf.config.checks import require
from rlhf.extras import require_extra

CONFIG = "configs/accelerate/deepspeed_zero2.yaml"
PREFIX = "ACCELERATE_"
REFUSED = {
    "deepspeed_config_file": ("DEEPSPEED_CONFIG_FILE", "zero_stage: 2 and the run's own config say all there is to it"),
    "offload_optimizer_device": ("DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "it is not supported; leave it out"),
    "offload_param_device": ("DEEPSPEED_OFFLOAD_PARAM_DEVICE", "it is not supported; leave it out"),
    "gradient_clipping": ("GRADIENT_CLIPPING", "leave it out: max_grad_norm in the run's config sets it"),
    "gradient_accumulation_steps": (
        "GRADIENT_ACCUMULATION_STEPS",
        "leave it out: batch_size and micro_batch_size in the run's config set it",
    ),
}
"""Settings of accelerate's `deepspeed_config`: the environment variable that carries each, and what to do instead."""


def require_zero2(on_cpu: bool) -> None:
    """Raise UserError unless accelerate was told to use ZeRO-2 and nothing else of DeepSpeed.

    Args:
        on_cpu: Whether accelerate was told to use CPUs.
    """
    require(not on_cpu, "with ACCELERATE_USE_CPU accelerate leaves DeepSpeed out; unset it, on CPUs too")
    stage = os.environ.get(f"{PREFIX}DEEPSPEED_ZERO_STAGE", "2")
    require(
        stage != "3",
        "accelerate's zero_stage is 3: each process would hold a part of every weight, and the model be saved as empty "
        f"tensors; use 2 ({CONFIG})",
    )
    require(stage == "2", f"accelerate's zero_stage is {stage}; it must be 2 ({CONFIG})")
    for name, (variable, instead) in REFUSED.items():
        value = os.environ.get(PREFIX + variable, "none")
        require(value in ("none", "auto"), f"accelerate's {name} is {value}; {instead}")
    require_extra("deepspeed", f"accelerate's {CONFIG}")


def zero_backend() -> dict[str, Any]:
    """What PartialState has to be told for its processes to meet: without a GPU it names no backend by itself."""
    import torch

    return {} if torch.accelerator.is_available() else {"backend": "gloo"}
