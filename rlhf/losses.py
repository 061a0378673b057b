"""The maths of PPO for language models: one module for the bandit and the Llama.

Every function takes tensors and returns tensors; models and configs stay outside. B sequences, T response tokens.
`response_mask` [B, T] is True from the first response token through EOS and is the only mask there is: what lies
outside it (padding) never changes a result or a gradient. Means are over the tokens of the mask; a caller that splits
an optimizer batch multiplies each part's loss by its share of the tokens, so that the gradient is that of the whole.

Papers: PPO (Schulman et al. 2017, arXiv:1707.06347), GAE (Schulman et al. 2016, arXiv:1506.02438),
RLHF reward and adaptive KL (Ziegler et al. 2019, arXiv:1909.08593), k1/k2/k3 (Schulman 2020,
joschu.net/blog/kl-approx.html), dual clip (Ye et al. 2020, arXiv:1912.09729).
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from rlhf.tensors import at_least_float32, masked_mean, zero_outside

KLEstimator = Literal["k1", "k2", "k3", "abs"]
Aggregation = Literal["token_mean", "sequence_mean"]
Stats = dict[str, Tensor]

GAE_BLOCK = 64  # tokens solved by one matrix product in `gae`


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, estimator: KLEstimator = "k1") -> Tensor:
    """Per-token estimate of KL(policy || reference) from tokens sampled by the policy; same shape as the inputs.

    With d = log pi - log pi_ref:  k1 = d,  k2 = d^2 / 2,  k3 = exp(-d) - 1 + d,  abs = |d|.
    k1 and k3 are unbiased, k2 and k3 never negative. In a *loss* only k2 has the gradient of the KL in
    expectation (that of k1 is 0); in the reward, where no gradient flows, any of them will do.
    Raises ValueError for an unknown estimator. Source: Schulman 2020.
    """
    d = at_least_float32(logprobs) - at_least_float32(ref_logprobs)
    if estimator == "k1":
        return d
    if estimator == "k2":
        return d**2 / 2
    if estimator == "k3":
        return torch.expm1(-d) + d
    if estimator == "abs":
        return d.abs()
    raise ValueError(f"kl estimator is {estimator!r}; it must be one of {', '.join(get_args(KLEstimator))}")


def last_token_index(response_mask: Tensor) -> Tensor:
    """Index of the last True of each row: [B, T] -> [B]; 0 for an empty row."""
    positions = torch.arange(response_mask.shape[-1], device=response_mask.device)
    return (positions * response_mask).amax(-1)


def kl_shaped_rewards(scores: Tensor, kl: Tensor, response_mask: Tensor, kl_coef: float) -> Tensor:
    """Per-token rewards r_t = -kl_coef * kl_t, plus the score on the last response token: [B], [B, T] -> [B, T].

    The last token is EOS, or the last one sampled if the response was cut off. Source: Ziegler et al. 2019, eq. 2.
    """
    rewards = zero_outside(-kl_coef * at_least_float32(kl), response_mask)
    has_token = response_mask.any(-1)
    last = last_token_index(response_mask)
    landed = zero_outside(at_least_float32(scores), has_token).unsqueeze(-1)
    return rewards.scatter_add(-1, last.unsqueeze(-1), landed.to(rewards.dtype))


def gae(
    rewards: Tensor, values: Tensor, response_mask: Tensor, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation: (advantages, returns), each [B, T], zero outside the mask.

    delta_t = r_t + gamma * V_{t+1} - V_t,   A_t = delta_t + gamma * gae_lambda * A_{t+1},   returns_t = A_t + V_t.
    V and A after the last response token are 0. Advantages are raw; whitening comes later.
    Source: Schulman et al. 2016, eq. 16. The recursion is solved a block of `GAE_BLOCK` tokens at a time: within a
    block A = delta @ decay with decay[s, t] = (gamma * gae_lambda)^(s - t) for s >= t, and only the first advantage
    of the following block has to be carried over.
    """
    rewards = zero_outside(at_least_float32(rewards), response_mask)
    values = zero_outside(at_least_float32(values), response_mask)
    next_values = torch.nn.functional.pad(values[:, 1:], (0, 1))
    deltas = rewards + gamma * next_values - values  # [B, T]
    advantages = zero_outside(discounted_sum(deltas, gamma * gae_lambda), response_mask)
    return advantages, zero_outside(advantages + values, response_mask)


def discounted_sum(x: Tensor, discount: float) -> Tensor:
    """Reverse discounted cumulative sum y_t = x_t + discount * y_{t+1}: [B, T] -> [B, T], in float32 or wider."""
    x = at_least_float32(x)
    exponent = torch.arange(GAE_BLOCK, device=x.device, dtype=x.dtype)
    lag = exponent.unsqueeze(1) - exponent  # [source, target]
    decay = torch.where(lag >= 0, discount ** lag.clamp(min=0), 0.0)
    to_next_block = discount ** (GAE_BLOCK - exponent)  # weight of the next block's first sum on each token
    blocks = []
    carry = x.new_zeros(x.shape[0], 1)
    for block in reversed(x.split(GAE_BLOCK, dim=1)):
        n = block.shape[1]
        y = block @ decay[:n, :n] + carry * to_next_block[GAE_BLOCK - n :]
        carry = y[:, :1]
        blocks.append(y)
    return torch.cat(blocks[::-1], dim=1)


def reward_per_token(scores: Tensor, response_mask: Tensor) -> Tensor:
    """The critic-free advantage A_t = score / number of response tokens, on every token: [B], [B, T] -> [B, T]."""
    length = response_mask.sum(-1).clamp(min=1)
    return zero_outside((at_least_float32(scores) / length).unsqueeze(-1).expand(response_mask.shape), response_mask)


def aggregate(loss: Tensor, response_mask: Tensor, aggregation: Aggregation = "token_mean") -> Tensor:
    """Mean of a per-token loss [B, T].

    token_mean: every token weighs the same. sequence_mean: the mean of each sequence's own mean, so that a short
    response weighs as much as a long one. Raises ValueError for an unknown aggregation.
    """
    if aggregation == "token_mean":
        return masked_mean(loss, response_mask)
    if aggregation == "sequence_mean":
        return masked_mean(masked_mean(loss, response_mask, dim=-1), response_mask.any(-1))
    raise ValueError(f"aggregation is {aggregation!r}; it must be one of {', '.join(get_args(Aggregation))}")


def clipped_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    clip_range: float,
    dual_clip: float | None = None,
    aggregation: Aggregation = "token_mean",
) -> tuple[Tensor, Stats]:
    """The clipped surrogate, as a loss to minimise; all inputs [B, T], the result a scalar and its statistics.

    r = pi / pi_old;  loss_t = max(-A r, -A clip(r, 1 - clip_range, 1 + clip_range)).
    With `dual_clip` (> 1), where A < 0: min(loss_t, -A * dual_clip), so that one huge ratio cannot dominate.
    Stats are token means: ratio_mean, clip_fraction (tokens where the clipped term is the larger), dual_clip_fraction
    (tokens at the dual clip's ceiling) and approx_kl = mean((log r)^2 / 2), the k2 estimate of KL(pi_old || pi).
    Source: Schulman et al. 2017, eq. 7; dual clip: Ye et al. 2020, eq. 5.
    """
    advantages = zero_outside(at_least_float32(advantages), response_mask)
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
    with torch.no_grad():
        stats = {
            "ratio_mean": masked_mean(ratio, response_mask),
            "clip_fraction": masked_mean((clipped > unclipped).float(), response_mask),
            "dual_clip_fraction": masked_mean(at_ceiling.float(), response_mask),
            "approx_kl": masked_mean(log_ratio**2 / 2, response_mask),
        }
    return aggregate(loss, response_mask, aggregation), stats


def clipped_value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    response_mask: Tensor,
    value_clip_range: float | None,
    aggregation: Aggregation = "token_mean",
) -> tuple[Tensor, Stats]:
    """Half the mean squared error of the critic, pessimistic about moves beyond the clip range; inputs [B, T].

    loss_t = 1/2 max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2); `value_clip_range=None` turns clipping off.
    Stats: clip_fraction, the share of tokens whose gradient the clip removed.
    Source: the implementation of Schulman et al. 2017 (openai/baselines ppo2).
    """
    old_values = zero_outside(at_least_float32(old_values), response_mask)
    values = zero_outside(at_least_float32(values), response_mask)
    returns = zero_outside(at_least_float32(returns), response_mask)
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


@dataclass
class FixedKLController:
    """A KL coefficient that never changes."""

    kl_coef: float

    def update(self, kl: float, n_steps: int) -> None:
        """Ignore the measured KL."""

    def state_dict(self) -> dict[str, float]:
        return {"kl_coef": self.kl_coef}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.kl_coef = state["kl_coef"]


@dataclass
class AdaptiveKLController(FixedKLController):
    """A KL coefficient steered so that the measured KL per sequence comes to `target`.

    kl_coef *= 1 + clip(kl / target - 1, -0.2, 0.2) * n_steps / horizon, with n_steps sequences seen since the last
    update. Source: Ziegler et al. 2019, section 2.2.
    """

    target: float
    horizon: float

    def update(self, kl: float, n_steps: int) -> None:
        """Move the coefficient after `n_steps` sequences whose mean KL (summed over tokens, nats) was `kl`."""
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        self.kl_coef *= 1 + error * n_steps / self.horizon
