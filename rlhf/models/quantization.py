"""A frozen base in four bits (QLoRA, Dettmers et al. 2023), by bitsandbytes.

The linear layers of the blocks are stored as NF4, their scales in eight bits, and multiplied out in the model's dtype.
Embeddings, norms and LM head stay in that dtype, adapters and value head in float32. PEFT's
`prepare_model_for_kbit_training` is not needed: it would freeze what is frozen here anyway, and copy embeddings and LM
head to float32, a gigabyte for the vocabulary of Llama 3.
"""

from typing import TYPE_CHECKING, Any

import torch

from rlhf.config import ModelConfig
from rlhf.config.checks import require
from rlhf.extras import require_extra
from rlhf.models.precision import torch_dtype
from rlhf.parallel.launch import engine

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def quantization_options(config: ModelConfig, device: torch.device) -> dict[str, Any]:
    """What `from_pretrained` takes to load a model as `config.quantization` says, on a device.

    Raises UserError if accelerate was told to divide the base, whose packed weights FSDP cannot cut, or bitsandbytes is
    not installed.
    """
    if config.quantization is None:
        return {}
    require(
        engine() == "ddp",
        f"model.quantization is 4bit, but accelerate was told to use {engine()}; use configs/accelerate/multi_gpu.yaml",
    )
    require_extra("bitsandbytes", "model.quantization 4bit")
    from transformers import BitsAndBytesConfig

    how = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch_dtype(config.dtype),
    )
    return {"quantization_config": how, "device_map": {"": device}}


def keep_differentiable(model: "PreTrainedModel") -> None:
    """Have bitsandbytes leave its weights as they are on CPUs that compute bfloat16.

    There it would repack them when they are first read in eval mode, and could not differentiate through them any more.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def is_quantized(model: "PreTrainedModel") -> bool:
    """Whether adapters cannot be merged into the weights of a model, because those hold too few bits for it."""
    return bool(getattr(model, "is_quantized", False))
