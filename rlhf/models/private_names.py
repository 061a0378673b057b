"""Every name of PyTorch, transformers, PEFT, accelerate and TRL that we use and they do not promise to keep.

Import it from here, `from rlhf.models.private_names import Conv1D`: only then is it looked up. When a release has moved
one, tests/test_private_names.py fails, and its message says what to do: change the path in this file, or do what
`instead` says.
"""

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class Private(NamedTuple):
    """Where something is, `module:attribute.attribute`; what we use it for; what would do without it."""

    path: str
    use: str
    instead: str


TRAINER = "transformers:Trainer."
_PACKING = "packed weights for decoding on the CPU"
_NO_PACKING = "let can_pack in rlhf/fast/packed.py return False: decoding is slower, and the same"
_FLASH = "attention in bfloat16 on the CPU that is differentiated in float32"
_NO_FLASH = "let use_float32_backward in rlhf/fast/attention.py return at once: updates are slower"
_RESUME = "fine-tuning that continues bit for bit (rlhf/stages/resumable.py)"
_HOOK = (
    "find what the Trainer calls at that moment now, and override that; tests/test_sft_resume.py shows whether it holds"
)
NAMES = {
    "AcceleratedOptimizer": Private(
        "accelerate.optimizer:AcceleratedOptimizer",
        "whether a script has prepared its optimizer itself",
        "treat every optimizer as one that is not prepared",
    ),
    "AcceleratedScheduler": Private(
        "accelerate.scheduler:AcceleratedScheduler",
        "whether a script has prepared its scheduler itself",
        "treat every scheduler as one that is not prepared",
    ),
    "cached_file": Private(
        "transformers.utils:cached_file",
        "files of a checkpoint, in a folder or on the hub",
        "huggingface_hub.hf_hub_download for what is no folder",
    ),
    "BaseTunerLayer": Private(
        "peft.tuners.tuners_utils:BaseTunerLayer",
        "whether a module belongs to an adapter",
        "any module with the attribute base_layer",
    ),
    "DropoutNd": Private(
        "torch.nn.modules.dropout:_DropoutNd",
        "every kind of dropout module",
        "a tuple of torch.nn's dropout classes",
    ),
    "ModulesToSaveWrapper": Private(
        "peft.utils:ModulesToSaveWrapper",
        "modules that an adapter folder brings whole",
        "any module with the attribute modules_to_save",
    ),
    "ParamWrapper": Private(
        "peft.tuners.lora.layer:ParamWrapper",
        "adapters on the experts of a mixture",
        "any LoRA layer with the attribute parameter_name",
    ),
    "Cache": Private(
        "transformers.cache_utils:Cache",
        "a key/value cache whose memory is taken once",
        "return transformers.DynamicCache() from growing_cache: more copies, the same tokens",
    ),
    "Conv1D": Private(
        "transformers.pytorch_utils:Conv1D",
        "GPT-2's transposed linear layers",
        "any module with a two-dimensional weight [in, out] and the attribute nf",
    ),
    "DynamicLayer": Private(
        "transformers.cache_utils:DynamicLayer",
        "a key/value cache whose memory is taken once",
        "return transformers.DynamicCache() from growing_cache: more copies, the same tokens",
    ),
    "FastGELUActivation": Private(
        "transformers.activations:FastGELUActivation",
        "GPT-2's GELU in one kernel",
        "let fuse_activations do nothing: slower, and the same",
    ),
    "GELUTanh": Private(
        "transformers.activations:GELUTanh", "GPT-2's GELU in one kernel", "torch.nn.GELU(approximate='tanh')"
    ),
    "GGUF_PRE_TOKENIZER_SPLITS": Private(
        "transformers.integrations.gguf.gguf_tokenizer_mapping:GGUF_PRE_TOKENIZER_SPLITS",
        "whether transformers splits text as the tokenizer in a GGUF does",
        "refuse GGUFs in rlhf/models/gguf_files.py: plain folders still load",
    ),
    "GgufHeader": Private(
        "transformers.integrations.gguf:GgufHeader",
        "which tensors of a GGUF transformers reads",
        "gguf.GGUFReader of the package gguf",
    ),
    "clear_device_cache": Private(
        "accelerate.utils.memory:clear_device_cache",
        "optimize_device_cache of the classic loop",
        "torch.cuda.empty_cache()",
    ),
    "prepare_data_loader": Private(
        "accelerate.data_loader:prepare_data_loader",
        "the classic loop's data loader",
        "Accelerator.prepare",
    ),
    "read_gguf_metadata": Private(
        "transformers.integrations.gguf:read_gguf_metadata",
        "the settings in a GGUF",
        "gguf.GGUFReader of the package gguf",
    ),
    "LoraLayer": Private(
        "peft.tuners.lora:LoraLayer",
        "adapters merged into the weights",
        "peft's own merge_adapter, and a copy of the base",
    ),
    "LoraLinear": Private(
        "peft.tuners.lora:Linear",
        "LoRA in one autograd node",
        "let fuse_adapters do nothing: slower, and the same up to rounding",
    ),
    "NewGELUActivation": Private(
        "transformers.activations:NewGELUActivation",
        "GPT-2's GELU in one kernel",
        "let fuse_activations do nothing: slower, and the same",
    ),
    "flash_attention": Private("torch:ops.aten._scaled_dot_product_flash_attention_for_cpu", _FLASH, _NO_FLASH),
    "flash_attention_backward": Private(
        "torch:ops.aten._scaled_dot_product_flash_attention_for_cpu_backward", _FLASH, _NO_FLASH
    ),
    "has_bfloat16_kernels": Private("torch:ops.mkldnn._is_mkldnn_bf16_supported", _PACKING, _NO_PACKING),
    "linear_pointwise": Private("torch:ops.mkldnn._linear_pointwise", _PACKING, _NO_PACKING),
    "pack_linear_weight": Private("torch:ops.mkldnn._reorder_linear_weight", _PACKING, _NO_PACKING),
    "repeat_kv": Private(
        "transformers.integrations.sdpa_attention:repeat_kv", _FLASH, "torch.repeat_interleave on dim 1"
    ),
    "reset_accelerator_state": Private(
        "accelerate.state:AcceleratorState._reset_state",
        "stages of one process that differ in mixed precision",
        "run every stage in a process of its own",
    ),
    "sdpa_attention_forward": Private(
        "transformers.integrations.sdpa_attention:sdpa_attention_forward", _FLASH, _NO_FLASH
    ),
    "root_mesh": Private(
        "torch.distributed.device_mesh:DeviceMesh._get_root_mesh",
        "gradients of weights that FSDP divides, added up over machines",
        "hand on the mesh that rlhf/models/divided.py makes",
    ),
    "sdpa_mask": Private("transformers.masking_utils:sdpa_mask", _FLASH, _NO_FLASH),
    "VLLMClient": Private(
        "trl.generation.vllm_client:VLLMClient", "weights sent to a vLLM server over NCCL", "generation.send: adapters"
    ),
}
"""What is imported from here."""

HOOKS = {
    "_run_epoch": Private(TRAINER + "_run_epoch", _RESUME, _HOOK),
    "_get_grad_norm": Private(TRAINER + "_get_grad_norm", _RESUME, _HOOK),
    "_load_from_checkpoint": Private(TRAINER + "_load_from_checkpoint", _RESUME, _HOOK),
    "_load_optimizer_and_scheduler": Private(TRAINER + "_load_optimizer_and_scheduler", _RESUME, _HOOK),
    "_load_rng_state": Private(TRAINER + "_load_rng_state", _RESUME, _HOOK),
    "_save_checkpoint": Private(TRAINER + "_save_checkpoint", _RESUME, _HOOK),
    "_prepare_for_training": Private(
        TRAINER + "_prepare_for_training",
        "fine-tuning under ZeRO-2 that continues (rlhf/stages/zero.py)",
        "find where the Trainer loads DeepSpeed's checkpoints now, and load ours; tests/test_zero.py shows it",
    ),
}
"""What rlhf/stages/resumable.py and rlhf/stages/zero.py override in transformers' Trainer."""


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return look_up(NAMES[name])


def look_up(private: Private) -> Any:
    """What is at a path; raises ImportError with the way around it if it is there no more."""
    module, _, attributes = private.path.partition(":")
    try:
        found = importlib.import_module(module)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError) as error:
        library = module.partition(".")[0]
        version = getattr(importlib.import_module(library), "__version__", "")
        raise ImportError(
            f"{private.path} is not in {library} {version}; it is for: {private.use}. Change its path in "
            f"rlhf/models/private_names.py, or instead: {private.instead}"
        ) from error
    return found


def block_names(model: "PreTrainedModel") -> tuple[str, ...]:
    """Classes of the model's transformer blocks; none where its authors named none. Instead: the class in the longest
    nn.ModuleList."""
    return tuple(model._no_split_modules or ())


def attention_name(model: "PreTrainedModel") -> str | None:
    """What computes the attention: sdpa, eager, ... Instead: do without float32 backward passes."""
    return model.config._attn_implementation


def loaded_from(model: "PreTrainedModel") -> str:
    """Hub name or folder that a model was loaded from. Instead: hand on the name that it was loaded by."""
    return model.config._name_or_path


def parameters_in_place(module: "nn.Module") -> dict[str, Any]:
    """The parameters that a module finds as its attributes, to be exchanged for a while. Instead: torch's parametrize,
    and the names that it gives back when the model is saved."""
    return module._parameters
