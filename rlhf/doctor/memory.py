"""Whether a run fits into the memory of this machine."""

from pathlib import Path

import torch

from rlhf.config import ModelConfig, PPOConfig
from rlhf.doctor.check import Check, failure, ok, warning
from rlhf.doctor.footprint import footprint, resident
from rlhf.models.load import default_device
from rlhf.models.pretrained import load_pretrained
from rlhf.policy.policy import Policy

NEARLY_FULL = 0.9
SMALLER = (
    "lower micro_batch_size or sampling.max_new_tokens, set model.gradient_checkpointing or model.dtype bfloat16, "
    "take critic: detached, or a smaller model"
)


def room(device: torch.device) -> int:
    """Bytes that this process may hold in all: what is free, and what it holds already."""
    import psutil  # type: ignore[import-untyped]

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    free = psutil.virtual_memory().available + resident()
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    text = limit.read_text().strip() if limit.is_file() else "max"
    return free if text == "max" else min(free, int(text))


def check_weights_fit(config: ModelConfig) -> Check | None:
    """Before anything is loaded: a model whose weights alone are too large for this machine; None if they are not.

    Of a base in four bits it says nothing: it is counted when it has been loaded.
    """
    if config.quantization is not None:
        return None
    from transformers import AutoConfig, AutoModelForCausalLM

    trust = config.trust_remote_code
    architecture = load_pretrained(AutoConfig, str(config.name_or_path), trust, config.gguf_file)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            architecture, dtype=getattr(torch, config.dtype), trust_remote_code=trust
        )
    needed, available = sum(p.numel() * p.element_size() for p in model.parameters()), room(default_device())
    if needed <= available:
        return None
    return failure(
        "memory", f"the weights take {amount(needed)}, this machine has room for {amount(available)}", SMALLER
    )


def check_memory(config: PPOConfig, policy: Policy, prompt_tokens: int) -> Check:
    """The peak of an update fits into what is free."""
    estimate, available = footprint(config, policy, prompt_tokens), room(policy.device)
    parts = ", ".join(f"{name} {amount(size)}" for name, size in vars(estimate).items() if size)
    found = f"about {amount(estimate.peak)} at the peak, room for {amount(available)}: {parts}"
    if estimate.peak > available:
        return failure("memory", found, SMALLER)
    if estimate.peak > NEARLY_FULL * available:
        return warning("memory", found, SMALLER)
    return ok("memory", found)


def amount(size: int) -> str:
    """Bytes in readable units."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
