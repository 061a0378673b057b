"""Who gets the credit: from scores [B] and per-token rewards [B, T] to advantages.

With a critic: `gae`. Without one: the score spread over its tokens (`reward_per_token`), or compared with the other
samples of the same prompt (`leave_one_out`, `group_relative`).

Papers: GAE (Schulman et al. 2016, arXiv:1506.02438), RLHF reward (Ziegler et al. 2019, arXiv:1909.08593),
RLOO (Kool et al. 2019; Ahmadian et al. 2024, arXiv:2402.14740), GRPO (Shao et al. 2024, arXiv:2402.03300).
"""

import torch
from torch import Tensor

from rlhf.maths.tensors import at_least_float32, zero_outside


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
    """Generalized advantage estimation: (advantages, returns), each [B, T], zero outside the mask.

    delta_t = r_t + gamma * V_{t+1} - V_t,   A_t = delta_t + gamma * gae_lambda * A_{t+1},   returns_t = A_t + V_t.
    V and A after the last response token are 0. Tokens that the policy did not choose (a tool's answer between two
    stretches of the mask) take no time: t + 1 is the next token of the mask. Advantages are raw; whitening comes later.
    Source: Schulman et al. 2016, eq. 16; the recursion itself is `discounted_sum`.
    """
    order = actions_first(response_mask)
    rewards = zero_outside(at_least_float32(rewards), response_mask).gather(-1, order)
    values = zero_outside(at_least_float32(values), response_mask)
    dense_values = values.gather(-1, order)
    next_values = torch.nn.functional.pad(dense_values[:, 1:], (0, 1))
    deltas = rewards + gamma * next_values - dense_values  # [B, T]
    dense = discounted_sum(deltas, gamma * gae_lambda)
    advantages = torch.zeros_like(dense).scatter(-1, order, dense)  # outside the mask there is nothing to discount
    return advantages, advantages + values


def actions_first(response_mask: Tensor) -> Tensor:
    """The order of each row's tokens that puts those of the mask first and keeps the rest of the order: [B, T].

    `x.gather(-1, order)` closes the gaps of a mask, `scatter(-1, order, x)` opens them again. A mask without gaps
    keeps the order that it has.
    """
    return (~response_mask).to(torch.int8).argsort(dim=-1, stable=True)


def discounted_sum(x: Tensor, discount: float) -> Tensor:
    """Reverse discounted cumulative sum y_t = x_t + discount * y_{t+1}: [B, T] -> [B, T], in float32 or wider.

    By doubling: once y_t holds the sum of 2^k terms, y_t + discount^(2^k) * y_{t + 2^k} holds that of 2^(k+1), so
    ceil(log2 T) passes over the batch do what T steps of the recursion would. Element by element on purpose: a
    matrix product is as fast, but autocast and TF32 would quietly compute it with 8 to 10 bits.
    """
    y = at_least_float32(x)
    length = 1
    while length < y.shape[-1]:
        longer = y.clone()
        longer[:, :-length].add_(y[:, length:], alpha=discount**length)
        y, length = longer, 2 * length
    return y


def reward_per_token(scores: Tensor, response_mask: Tensor) -> Tensor:
    """The critic-free advantage A_t = score / number of response tokens, on every token: [B], [B, T] -> [B, T]."""
    length = response_mask.sum(-1).clamp(min=1)
    return zero_outside((at_least_float32(scores) / length).unsqueeze(-1).expand(response_mask.shape), response_mask)


def leave_one_out(scores: Tensor, num_generations: int) -> Tensor:
    """RLOO: each score minus the mean of the *other* samples of its prompt: [B] -> [B].

    A_i = s_i - sum_{j != i} s_j / (k - 1)  =  k / (k - 1) * (s_i - mean(s)),  with k = num_generations.
    The k rows of a prompt lie side by side. The baseline does not depend on sample i, so the gradient stays unbiased.
    Raises ValueError if k < 2 or B is not a multiple of k. Source: Ahmadian et al. 2024, section 2.3.
    """
    groups = _by_prompt(scores, num_generations)
    others = (groups.sum(-1, keepdim=True) - groups) / (num_generations - 1)
    return (groups - others).flatten()


def group_relative(scores: Tensor, num_generations: int) -> Tensor:
    """GRPO: each score standardized within the samples of its prompt: [B] -> [B].

    A_i = (s_i - mean(s)) / (std(s) + 1e-4), std with the divisor k - 1, as TRL computes it; k = num_generations.
    The k rows of a prompt lie side by side. A prompt whose samples all score the same gets 0. Dividing by the
    spread favors prompts that are nearly always or nearly never solved; for the advantage without it take
    `leave_one_out`. Raises ValueError if k < 2 or B is not a multiple of k. Source: Shao et al. 2024, section 4.1.2.
    """
    groups = _by_prompt(scores, num_generations)
    centered = groups - groups.mean(-1, keepdim=True)
    return (centered / (groups.std(-1, keepdim=True) + 1e-4)).flatten()


def _by_prompt(scores: Tensor, num_generations: int) -> Tensor:
    """[P * k] -> [P, k], or an error that says which number is wrong."""
    if num_generations < 2:
        raise ValueError(f"num_generations is {num_generations}; comparing samples of a prompt takes at least 2")
    if scores.dim() != 1 or len(scores) % num_generations:
        raise ValueError(
            f"scores has shape {tuple(scores.shape)}; it must be [B], B a multiple of num_generations = "
            f"{num_generations}"
        )
    return at_least_float32(scores).view(-1, num_generations)
