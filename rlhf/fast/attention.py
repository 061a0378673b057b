"""Attention in bfloat16 on the CPU whose backward pass runs in float32: PyTorch's own takes more than twice as long."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlhf.models import private_names

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "sdpa_float32_backward"


def use_float32_backward(model: "PreTrainedModel") -> None:
    """Let a bfloat16 model on the CPU, if it uses PyTorch's attention, differentiate it in float32."""
    from transformers import AttentionInterface, AttentionMaskInterface

    if model.device.type != "cpu" or model.dtype != torch.bfloat16 or private_names.attention_name(model) != "sdpa":
        return

    def attention(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        is_plain = mask is None and not options.get("dropout") and options.get("position_bias") is None
        if not (is_plain and torch.is_grad_enabled() and query.shape[2] == key.shape[2]):
            return private_names.sdpa_attention_forward(module, query, key, value, mask, **options)
        groups = getattr(module, "num_key_value_groups", 1)
        scale = options.get("scaling") or query.shape[-1] ** -0.5
        key, value = private_names.repeat_kv(key, groups), private_names.repeat_kv(value, groups)
        output = _CausalAttention.apply(query, key, value, scale)
        return output.transpose(1, 2), None

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, private_names.sdpa_mask)
    model.set_attn_implementation(NAME)


class _CausalAttention(torch.autograd.Function):
    """query, key, value [B, heads, L, width] -> [B, heads, L, width]."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        output, logsumexp = private_names.flash_attention(query, key, value, 0.0, True, scale=scale)
        ctx.save_for_backward(query, key, value, output, logsumexp)
        ctx.scale = scale
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, logsumexp = ctx.saved_tensors
        query, key, value, output = (tensor.float() for tensor in tensors)
        gradients = private_names.flash_attention_backward(
            upstream.float(), query, key, value, output, logsumexp, 0.0, True, scale=ctx.scale
        )
        return *(gradient.to(upstream.dtype) for gradient in gradients), None
