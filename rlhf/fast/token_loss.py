"""Cross-entropy of a language model whose logits are never there at once: the gradient is taken block by block.

The loss is one number, so that the gradients of features, weight and bias can be summed while a block of logits is
there; autograd would keep the logits [N, V], or compute them a second time.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rlhf.fast.lm_head import CACHED_LOGITS, LOGIT_ROWS
from rlhf.maths.tensors import at_least_float32
from rlhf.models.head import Head


def token_loss(features: Tensor, token_ids: Tensor, head: Head) -> tuple[Tensor, Tensor]:
    """Sum of -log softmax(head(features))[token] over all tokens, and how many of them are the most probable ones.

    features [N, H], token_ids [N] -> two scalars; head.linear has to be a plain nn.Linear.
    """
    linear, differentiates = head.linear, torch.is_grad_enabled()
    loss, hits = _TokenLoss.apply(features, linear.weight, linear.bias, token_ids, head, differentiates)
    return loss, hits


class _TokenLoss(torch.autograd.Function):
    """features [N, H], weight [V, H], bias [V] or None, token_ids [N] -> loss [], hits [].

    With logits u = h W^T + b, z = c tanh(s u / c) (z = s u without a cap) and p = softmax(z):
    d loss / du = (p - onehot) s (1 - (z / c)^2), of which each gradient is one product.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        token_ids: Tensor,
        head: Head,
        differentiates: bool,
    ) -> tuple[Tensor, Tensor]:
        of_features, of_weight, of_bias = (differentiates and needed for needed in ctx.needs_input_grad[:3])
        d_features = torch.empty_like(features) if of_features else None
        d_weight = torch.zeros_like(weight) if of_weight else None
        d_bias = torch.zeros_like(bias) if of_bias and bias is not None else None
        loss, hits = features.new_zeros((), dtype=torch.float32), token_ids.new_zeros(())
        for start in range(0, len(features), LOGIT_ROWS):
            block = slice(start, start + LOGIT_ROWS)
            logits = nn.functional.linear(features[block], weight, bias)  # [n, V]
            logprobs, is_top = grade(logits, token_ids[block], head, differentiates)
            loss -= logprobs.sum()
            hits += is_top.sum()
            if d_features is not None:
                d_features[block] = logits @ weight
            if d_weight is not None:
                d_weight += logits.t() @ features[block]
            if d_bias is not None:
                d_bias += logits.sum(0)
        ctx.save_for_backward(d_features, d_weight, d_bias)
        ctx.mark_non_differentiable(hits)
        return loss, hits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        gradients = (None if tensor is None else tensor * upstream for tensor in ctx.saved_tensors)
        return *gradients, None, None, None


def grade(logits: Tensor, token_ids: Tensor, head: Head, in_place: bool) -> tuple[Tensor, Tensor]:
    """Log-probabilities [n] and whether each token is the most probable one [n], from u = logits [n, V].

    `in_place` writes the gradient of -log p with respect to u over the logits.
    """
    n_rows = max(1, CACHED_LOGITS // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    columns = []
    for u, ids in zip(logits.split(n_rows), token_ids.unsqueeze(-1).split(n_rows), strict=True):
        z = at_least_float32(u) if head.is_linear else capped(u, head)
        top, chosen = z.amax(-1, keepdim=True), z.gather(-1, ids)
        exponentials = (z - top).exp_()
        total = exponentials.sum(-1, keepdim=True)
        columns.append(((chosen - top - total.log()).squeeze(-1), (chosen == top).squeeze(-1)))
        if in_place:
            # A difference before the product: where p is near 1 little would be left of the digits after it.
            gradient = exponentials.div_(total).scatter_add_(-1, ids, exponentials.new_full(ids.shape, -1.0))
            u.copy_(gradient if head.is_linear else gradient * slope(z, head))
    logprobs, is_top = (torch.cat(column) for column in zip(*columns, strict=True))
    return logprobs, is_top


def capped(u: Tensor, head: Head) -> Tensor:
    """c tanh(s u / c), or s u without a cap."""
    scaled = at_least_float32(u) * head.scale
    return scaled if head.soft_cap is None else head.soft_cap * (scaled / head.soft_cap).tanh()


def slope(z: Tensor, head: Head) -> Tensor | float:
    """dz/du."""
    return head.scale if head.soft_cap is None else head.scale * (1 - (z / head.soft_cap) ** 2)
