"""From hidden states to log-probabilities of tokens, a block of logits at a time.

The gradient of a token's log-probability with respect to its hidden state does not depend on the loss. So it is taken
while the logits are there, as [N, H] numbers, and no logits are kept or computed again for the backward pass.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from rlhf.tensors import at_least_float32, entropy_from_logits

LOGIT_CHUNK = 2**24
"""Logits held at once, [n, V]."""


def token_logprobs(
    features: Tensor, token_ids: Tensor, lm_head: nn.Module, temperature: float, with_entropy: bool
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of tokens and entropy of their distributions, softmax(lm_head(features) / temperature).

    features [N, H], token_ids [N] -> [N] and [N], float32 or wider; entropy in nats, 0 where not asked for.
    """
    chunk = max(1, LOGIT_CHUNK // lm_head.weight.shape[0])  # type: ignore[index]
    parts = list(zip(features.split(chunk), token_ids.split(chunk), strict=True))
    if type(lm_head) is nn.Linear and not lm_head.weight.requires_grad:
        scored = [_FrozenHead.apply(f, ids, lm_head, temperature, with_entropy) for f, ids in parts]
    elif len(parts) == 1:  # a head that is trained needs the logits for its own gradient
        scored = [_score(features, token_ids, lm_head, temperature, with_entropy)]
    else:
        scored = [
            checkpoint(_score, f, ids, lm_head, temperature, with_entropy, use_reentrant=False) for f, ids in parts
        ]
    logprobs, entropy = (torch.cat(column) for column in zip(*scored, strict=True))
    return logprobs, entropy


def _score(
    features: Tensor, token_ids: Tensor, lm_head: nn.Module, temperature: float, with_entropy: bool
) -> tuple[Tensor, Tensor]:
    """The plain way, differentiated by autograd."""
    logits = at_least_float32(lm_head(features)) / temperature  # [n, V]
    entropy = entropy_from_logits(logits) if with_entropy else logits.new_zeros(len(logits))
    return _chosen(logits.log_softmax(-1), token_ids), entropy


def _chosen(log_p: Tensor, token_ids: Tensor) -> Tensor:
    return log_p.gather(-1, token_ids.unsqueeze(-1)).squeeze(-1)


class _FrozenHead(torch.autograd.Function):
    """`_score` with its gradient to the features only.

    logits z = W h / temperature, p = softmax(z):
    d log p(a) / dh = -sum_v (p_v - [v = a]) W_v / temperature
    d entropy / dh  = -sum_v p_v (log p_v + entropy) W_v / temperature
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, token_ids: Tensor, lm_head: nn.Linear, temperature: float, with_entropy: bool
    ) -> tuple[Tensor, Tensor]:
        logits = at_least_float32(lm_head(features)).div_(temperature)  # [n, V]
        log_p = logits.log_softmax(-1)
        del logits
        logprobs = _chosen(log_p, token_ids)
        p = log_p.exp()
        entropy = torch.special.entr(p).sum(-1) if with_entropy else torch.zeros_like(logprobs)
        if ctx.needs_input_grad[0]:
            by_entropy = [p * torch.where(p > 0, log_p + entropy.unsqueeze(-1), 0.0)] if with_entropy else []
            # as a difference before the product, not after it: where p is near 1 little would be left of the digits
            by_logprob = p.scatter_add_(-1, token_ids.unsqueeze(-1), -torch.ones_like(logprobs).unsqueeze(-1))
            weight = lm_head.weight
            gradients = [(dz.to(weight.dtype) @ weight).div_(-temperature) for dz in (by_logprob, *by_entropy)]
            ctx.save_for_backward(*gradients)  # each [n, H]
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # without the entropy there is one gradient only
        terms = [(g.unsqueeze(-1) * dh) for g, dh in zip(upstream, saved, strict=False)]
        return torch.stack(terms).sum(0).to(saved[0].dtype), None, None, None, None
