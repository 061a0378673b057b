"""The losses of PPO, the same for a bandit and for a Llama.

Every function takes tensors and returns tensors; models and configs stay outside. B sequences, T response tokens.
`response_mask` [B, T] is True at the tokens that the policy chose, through EOS, and is the only mask there is: what
lies outside it (padding, a tool's answer) never changes a result or a gradient. Means are over its tokens; a caller
that splits an optimizer batch multiplies each part's loss by its share of them, so that the gradient is the whole's.

Papers: PPO (Schulman et al. 2017, arXiv:1707.06347), dual clip (Ye et al. 2020, arXiv:1912.09729), truncated importance
sampling (Ionides 2008, doi:10.1198/106186008X320456).
"""

import torch
from torch import Tensor

from rlhf.maths.tensors import at_least_float32, masked_mean, zero_outside

AGGREGATIONS = ("token_mean", "sequence_mean")
Stats = dict[str, Tensor]


def aggregate(loss: Tensor, response_mask: Tensor, aggregation: str = "token_mean") -> Tensor:
    """Mean of a per-token loss [B, T].

    token_mean: every token weighs the same. sequence_mean: the mean of each sequence's own mean, so that a short
    response weighs as much as a long one. Raises ValueError for an unknown aggregation.
    """
    if aggregation == "token_mean":
        return masked_mean(loss, response_mask)
    if aggregation == "sequence_mean":
        return masked_mean(masked_mean(loss, response_mask, dim=-1), response_mask.any(-1))
    raise ValueError(f"aggregation is {aggregation!r}; it must be one of {', '.join(AGGREGATIONS)}")


def reinforce_loss(
    logprobs: Tensor, advantages: Tensor, response_mask: Tensor, aggregation: str = "token_mean"
) -> Tensor:
    """The plain policy gradient as a loss, -A log pi: [B, T] each (advantages also [B, 1]) -> scalar.

    Correct only at the policy that sampled the tokens, that is for one update per batch; the gradient of
    `clipped_policy_loss` at ratio 1 is the same. No gradient flows into the advantages.
    Source: Williams 1992, theorem 1.
    """
    # Selected before the product: garbage times a gradient of 0 would still be NaN.
    logprobs = zero_outside(at_least_float32(logprobs), response_mask)
    return aggregate(-at_least_float32(advantages).detach() * logprobs, response_mask, aggregation)


def truncated_importance_weights(
    old_logprobs: Tensor, sampler_logprobs: Tensor, response_mask: Tensor, level: str, cap: float
) -> Tensor:
    """Ratio of policy to sampler probability of the sampled tokens, at most `cap`; [B, T] each, 1 outside the mask.

    token: w_t = min(pi_old(a_t) / pi_sampler(a_t), cap); sequence: the same of the whole response, the ratios
    multiplied over its tokens, for each of them. The loss of samples from pi_sampler, weighted by w, is that of samples
    from pi_old but for the cap, which bounds the variance. No gradient flows. Raises ValueError for another level.
    Source: Ionides 2008, section 2.
    """
    if level not in ("token", "sequence"):
        raise ValueError(f"importance level is {level!r}; it must be token or sequence")
    log_ratio = zero_outside(at_least_float32(old_logprobs) - at_least_float32(sampler_logprobs), response_mask)
    if level == "sequence":
        log_ratio = zero_outside(log_ratio.sum(-1, keepdim=True), response_mask)
    return log_ratio.exp().clamp(max=cap).detach()


def clipped_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    clip_range: float,
    dual_clip: float | None = None,
    aggregation: str = "token_mean",
    weights: Tensor | None = None,
) -> tuple[Tensor, Stats]:
    """The clipped surrogate, as a loss to minimize; all inputs [B, T], the result a scalar and its statistics.

    r = pi / pi_old;  loss_t = max(-A r, -A clip(r, 1 - clip_range, 1 + clip_range)).
    With `dual_clip` (> 1), where A < 0: min(loss_t, -A * dual_clip), so that one huge ratio cannot dominate.
    `weights` [B, T], where given, multiply the loss of each token (see `truncated_importance_weights`).
    Stats are token means: ratio_mean, clip_fraction (tokens where the clipped term is the larger), dual_clip_fraction
    (tokens at the dual clip's ceiling), approx_kl = mean((log r)^2 / 2) and approx_kl_k1 = mean(-log r), the k2 and k1
    estimates of KL(pi_old || pi).
    Source: Schulman et al. 2017, eq. 7; dual clip: Ye et al. 2020, eq. 5.
    """
    # Selecting what the gradient flows into is enough: the rest is left out by the means.
    advantages = at_least_float32(advantages)
    log_ratio = zero_outside(at_least_float32(logprobs) - at_least_float32(old_logprobs), response_mask)
    ratio = log_ratio.exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    loss = torch.maximum(unclipped, clipped)
    at_ceiling = torch.zeros_like(response_mask)
    if dual_clip is not None:
        ceiling = -advantages * dual_clip
        at_ceiling = (advantages < 0) & (loss > ceiling)
        loss = torch.where(at_ceiling, ceiling, loss)
    if weights is not None:
        loss = loss * weights
    with torch.no_grad():
        stats = {
            "ratio_mean": masked_mean(ratio, response_mask),
            "clip_fraction": masked_mean((clipped > unclipped).float(), response_mask),
            "dual_clip_fraction": masked_mean(at_ceiling.float(), response_mask),
            "approx_kl": masked_mean(log_ratio**2 / 2, response_mask),
            "approx_kl_k1": masked_mean(-log_ratio, response_mask),
        }
    return aggregate(loss, response_mask, aggregation), stats


def clipped_value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    response_mask: Tensor,
    value_clip_range: float | None,
    aggregation: str = "token_mean",
) -> tuple[Tensor, Stats]:
    """Half the mean squared error of the critic, pessimistic about moves beyond the clip range; inputs [B, T].

    loss_t = 1/2 max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2); `value_clip_range=None` turns clipping off.
    Stats: clip_fraction, the share of tokens whose gradient the clip removed.
    Source: the implementation of Schulman et al. 2017 (openai/baselines ppo2).
    """
    values = zero_outside(at_least_float32(values), response_mask)
    old_values, returns = at_least_float32(old_values), at_least_float32(returns)
    loss = (values - returns) ** 2
    was_clipped = torch.zeros_like(response_mask)
    if value_clip_range is not None:
        near_old = old_values + (values - old_values).clamp(-value_clip_range, value_clip_range)
        clipped = (near_old - returns) ** 2
        was_clipped = clipped > loss
        loss = torch.maximum(loss, clipped)
    with torch.no_grad():
        stats = {"clip_fraction": masked_mean(was_clipped.to(loss.dtype), response_mask)}
    return 0.5 * aggregate(loss, response_mask, aggregation), stats
