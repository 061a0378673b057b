"""From hidden states to log-probabilities of tokens, a block of logits at a time.

The gradient of a token's log-probability with respect to its hidden state does not depend on the loss. So it is taken
while the logits are there, as [N, H] numbers, and no logits are kept or computed again for the backward pass.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from rlhf.maths.tensors import at_least_float32, entropy_from_logits

LOGIT_ROWS = 256
"""Tokens whose logits are held at once, [n, V]: as many as the product needs to be fast."""
CACHED_LOGITS = 2**17
"""Logits worked on at once between the products: as many as stay in the cache of a CPU."""
NEVER = -1e4
"""Log-probability whose probability is 0 in any floating-point type; less would make a NaN of 0 log 0."""


def token_logprobs(
    features: Tensor, token_ids: Tensor, lm_head: nn.Module, temperature: float, with_entropy: bool
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of tokens and entropy of their distributions, softmax(lm_head(features) / temperature).

    features [N, H], token_ids [N] -> [N] and [N], float32 or wider; entropy in nats, 0 where not asked for.
    """
    if type(lm_head) is nn.Linear and not lm_head.weight.requires_grad:
        return _FrozenHead.apply(features, token_ids, lm_head, temperature, with_entropy)
    if len(features) <= LOGIT_ROWS:  # a head that is trained needs the logits for its own gradient
        return _score(features, token_ids, lm_head, temperature, with_entropy)
    scored = [
        checkpoint(_score, some, ids, lm_head, temperature, with_entropy, use_reentrant=False)
        for some, ids in zip(features.split(LOGIT_ROWS), token_ids.split(LOGIT_ROWS), strict=True)
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
        differentiates = ctx.needs_input_grad[0]
        blocks = [
            _score_block(some, ids, lm_head, temperature, with_entropy, differentiates)
            for some, ids in zip(features.split(LOGIT_ROWS), token_ids.split(LOGIT_ROWS), strict=True)
        ]
        logprobs, entropy, *gradients = (torch.cat(column) for column in zip(*blocks, strict=True))
        ctx.save_for_backward(*gradients)  # each [N, H]
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # without the entropy there is one gradient only
        terms = [(g.unsqueeze(-1) * dh) for g, dh in zip(upstream, saved, strict=False)]
        return torch.stack(terms).sum(0).to(saved[0].dtype), None, None, None, None


def _score_block(
    features: Tensor,
    token_ids: Tensor,
    lm_head: nn.Linear,
    temperature: float,
    with_entropy: bool,
    differentiates: bool,
) -> tuple[Tensor, ...]:
    """Log-probabilities [n] and entropy [n]; where wanted, the gradients of both to the features, [n, H] each."""
    logits = lm_head(features)  # [n, V]
    dz = ((logits, torch.empty_like(logits)) if with_entropy else (logits,)) if differentiates else ()
    n_rows = max(1, CACHED_LOGITS // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    in_cache = zip(*(x.split(n_rows) for x in (token_ids, logits, *dz)), strict=True)
    scored = [_score_rows(ids, z, out, temperature, with_entropy) for ids, z, *out in in_cache]
    logprobs, entropy = (torch.cat(column) for column in zip(*scored, strict=True))
    return logprobs, entropy, *((gradient @ lm_head.weight).div_(-temperature) for gradient in dz)


def _score_rows(
    token_ids: Tensor, logits: Tensor, dz: list[Tensor], temperature: float, with_entropy: bool
) -> tuple[Tensor, Tensor]:
    """Log-probabilities [n] and entropy [n] from logits [n, V]; fills up to two gradients to z, [n, V] each.

    The first may take the place of the logits.
    """
    log_p = at_least_float32(logits) / temperature
    log_p -= log_p.amax(-1, keepdim=True)
    p = log_p.softmax(-1)
    log_p += p.amax(-1, keepdim=True).log()  # the largest is exp(0) / sum
    at_token = token_ids.unsqueeze(-1)
    logprobs = log_p.gather(-1, at_token).squeeze(-1)
    entropy = -torch.linalg.vecdot(p, log_p.clamp_(min=NEVER)) if with_entropy else torch.zeros_like(logprobs)
    for by_entropy in dz[1:]:
        by_entropy.copy_(p * (log_p + entropy.unsqueeze(-1)))
    for by_logprob in dz[:1]:
        # as a difference before the product, not after it: where p is near 1 little would be left of the digits
        by_logprob.copy_(p.scatter_add_(-1, at_token, p.new_full(at_token.shape, -1.0)))
    return logprobs, entropy
