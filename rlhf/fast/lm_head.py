"""Log-probabilities of tokens under a frozen LM head, whose gradient is taken while the logits are there.

d log p(a) / dh does not depend on the loss. So it is kept as [N, H] numbers, where autograd would keep the logits
[N, V], or compute them a second time.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rlhf.maths.tensors import at_least_float32

LOGIT_ROWS = 256
"""Tokens whose logits are held at once, [n, V]: as many as the product needs to be fast."""
CACHED_LOGITS = 2**17
"""Logits worked on at once between the products: as many as stay in the cache of a CPU."""

NEVER = -1e4
"""Log-probability whose probability is 0 in any floating-point type; less would make a NaN of 0 log 0."""


class FrozenHead(torch.autograd.Function):
    """features [N, H], token_ids [N] -> log-probabilities [N] and entropy [N] of softmax(lm_head(features) / T).

    d log p(a) / dh = -sum_v (p_v - [v = a]) W_v / T; no gradient flows through the entropy, 0 where not asked for.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, token_ids: Tensor, lm_head: nn.Linear, temperature: float, with_entropy: bool
    ) -> tuple[Tensor, Tensor]:
        differentiates = ctx.needs_input_grad[0]
        columns = []
        for some, ids in zip(features.split(LOGIT_ROWS), token_ids.split(LOGIT_ROWS), strict=True):
            logits = lm_head(some)  # [n, V]
            columns.append(score(logits, ids, temperature, with_entropy, differentiates))
            if differentiates:
                columns[-1].append((logits @ lm_head.weight).div_(-temperature))
        logprobs, entropy, *gradient = (torch.cat(column) for column in zip(*columns, strict=True))
        ctx.save_for_backward(*gradient)  # [N, H]
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        [gradient] = ctx.saved_tensors
        return (upstream[0].unsqueeze(-1) * gradient).to(gradient.dtype), None, None, None, None


def score(logits: Tensor, token_ids: Tensor, temperature: float, with_entropy: bool, in_place: bool) -> list[Tensor]:
    """Log-probabilities [n] and entropy [n] from logits [n, V]; `in_place` writes p_v - [v = a] over the logits."""
    n_rows = max(1, CACHED_LOGITS // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    rows = []
    for z, ids in zip(logits.split(n_rows), token_ids.unsqueeze(-1).split(n_rows), strict=True):
        log_p = (at_least_float32(z) / temperature).log_softmax(-1)
        logprobs = log_p.gather(-1, ids).squeeze(-1)
        entropy = torch.zeros_like(logprobs)
        if with_entropy:
            entropy = -torch.linalg.vecdot(log_p.exp(), log_p.clamp_(min=NEVER))
        if (
            in_place
        ):  # as a difference before the product: where p is near 1 little would be left of the digits after it
            z.copy_(log_p.exp_().scatter_add_(-1, ids, log_p.new_full(ids.shape, -1.0)))
        rows.append((logprobs, entropy))
    return [torch.cat(column) for column in zip(*rows, strict=True)]
