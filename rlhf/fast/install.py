"""The fast paths of a policy's own layers, all at once."""

from typing import TYPE_CHECKING

from torch import nn

from rlhf.fast.activations import fuse_activations
from rlhf.fast.attention import use_float32_backward

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def install(policy: nn.Module, language_model: "PreTrainedModel") -> None:
    """Have LoRA layers, activations and attention compute what they compute in fewer operations."""
    fuse_activations(policy)
    use_float32_backward(language_model)
    if any(name.endswith("lora_A") for name, _ in policy.named_modules()):
        from rlhf.fast.lora import fuse_adapters

        fuse_adapters(policy)
