"""PEFT's LoRA layer on a frozen base, in as few passes over the activations as there are products."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rlhf.models.private_names import Conv1D, LoraLinear


def fuse_adapters(model: nn.Module) -> None:
    """Let every plain LoRA layer of the model compute what it computes in fewer operations."""
    for layer in model.modules():
        if type(layer) is LoraLinear:
            layer.__class__ = FusedLinear


class FusedLinear(LoraLinear):
    """`peft.tuners.lora.Linear` with one autograd node for y = x W + b + scaling (x A^T) B^T.

    PEFT's own takes eight; with a bfloat16 base it computes the adapter's part on float32 copies of the activations.
    Here A and B, which stay float32, are rounded to the activations' type for the products, as autocast does.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        adapter = self._the_adapter()
        base = self.get_base_layer()
        is_mixed = torch.is_autocast_enabled(x.device.type) or x.dtype != base.weight.dtype
        if adapter is None or args or kwargs or is_mixed:
            return super().forward(x, *args, **kwargs)
        weight = base.weight if self.fan_in_fan_out else base.weight.t()  # [in, out]
        a, b = self.lora_A[adapter].weight, self.lora_B[adapter].weight
        return _LoraProduct.apply(x, weight, base.bias, a, b, self.scaling[adapter])

    def _the_adapter(self) -> str | None:
        """The one active adapter, None where PEFT has more to do than the plain product."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        [adapter] = self.active_adapters
        is_frozen = not any(parameter.requires_grad for parameter in self.get_base_layer().parameters())
        return adapter if is_frozen and is_plain(self, adapter) else None


def is_plain(layer: Any, adapter: str | None) -> bool:
    """Whether a layer of a model computes W x + b + scaling B A x with this adapter, and nothing besides.

    A subclass of a linear layer may do more than that, and so may a LoRA layer of another kind, or a variant.
    """
    if type(layer) not in (LoraLinear, FusedLinear) or type(layer.get_base_layer()) not in (nn.Linear, Conv1D):
        return False
    return adapter in layer.lora_A and adapter not in layer.lora_variant and not layer.lora_bias[adapter]


class _LoraProduct(torch.autograd.Function):
    """x [..., in], weight [in, out], bias [out] or None, a [r, in], b [out, r] -> [..., out]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # [N, in]
        low = rows @ a.to(x.dtype).t()  # [N, r]
        output = x.new_empty(*x.shape[:-1], weight.shape[1])  # no view: Falcon adds to it in place
        y = output.view(-1, weight.shape[1])
        torch.mm(rows, weight, out=y) if bias is None else torch.addmm(bias, rows, weight, out=y)
        y.addmm_(low, b.to(x.dtype).t(), alpha=scaling)
        ctx.save_for_backward(rows, low, weight, a, b)
        ctx.scaling, ctx.shape = scaling, x.shape
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        rows, low, weight, a, b = ctx.saved_tensors
        dy = dy.reshape(-1, dy.shape[-1])  # [N, out]
        dlow = (dy @ b.to(dy.dtype)).mul_(ctx.scaling)  # [N, r]
        dx = None
        if ctx.needs_input_grad[0]:
            dx = (dy @ weight.t()).addmm_(dlow, a.to(dy.dtype)).view(ctx.shape)
        da = (dlow.t() @ rows).to(a.dtype)
        db = (dy.t() @ low).mul_(ctx.scaling).to(b.dtype)
        return dx, None, None, da, db, None
