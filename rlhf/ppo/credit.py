"""Credit assignment: from scores of whole responses to an advantage for every token."""

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlhf.config import PPOConfig
from rlhf.maths.advantages import (
    gae,
    group_relative,
    kl_shaped_rewards,
    last_token_index,
    leave_one_out,
    reward_per_token,
)
from rlhf.maths.tensors import RunningMoments, masked_mean, scale_to_unit_variance, whiten, zero_outside
from rlhf.ppo.rollout import Experience, Rollout
from rlhf.ppo.spans import span_rewards
from rlhf.rewards import Scores

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def final_scores(
    config: PPOConfig, component_scores: Scores, has_eos: Tensor, moments: RunningMoments, is_new: bool = True
) -> Tensor:
    """The rewards' totals, normalized by the running moments, clipped, minus the penalty for a missing EOS: [B].

    The moments take in this batch first, if it is new to them.
    """
    scores = torch.tensor(component_scores.total, device=has_eos.device)
    if config.score_normalization != "none":
        if is_new:
            moments.update(scores)
        scores = moments.normalize(scores) if config.score_normalization == "standardize" else moments.scale(scores)
    if config.score_clip is not None:
        scores = scores.clamp(-config.score_clip, config.score_clip)
    return scores - config.missing_eos_penalty * (~has_eos)


def with_values(experience: Experience, value: float) -> Experience:
    """The same experience of a critic that predicts `value` everywhere."""
    values = zero_outside(torch.full_like(experience.old_values, value), experience.response_mask)
    return dataclasses.replace(experience, old_values=values)


def mean_return(config: PPOConfig, rewards: Tensor, scores: Tensor, response_mask: Tensor) -> float:
    """Where a new critic should begin: the mean over responses of the mean return of their tokens.

    That is the mean score, unless discount, whitening, spans or a KL move the returns away from it.
    """
    _, returns = gae(rewards, torch.zeros_like(rewards), response_mask, config.gamma, 1.0)
    moved = masked_mean(returns - scores.unsqueeze(-1), response_mask, dim=-1)
    return float(scores.mean() + moved.mean())


def assign_credit(
    config: PPOConfig,
    experience: Experience,
    scores: Tensor,
    component_scores: Scores,
    kl_coef: float,
    tokenizer: "PreTrainedTokenizerFast",
    new_critic: bool = False,
) -> Rollout:
    """Spread scores [B], the rewards' spans and the KL penalty over the tokens; advantages and returns from them.

    A score lands on the last token, except for what an environment has paid for the turns before the last one.
    The values of a new critic are those that it should begin with, see `mean_return`.
    """
    mask = experience.response_mask
    early = early_rewards(experience)
    rewards = kl_shaped_rewards(scores - early.sum(-1), experience.kl, mask, kl_coef) + early
    rewards = rewards + span_rewards(component_scores.spans, experience, tokenizer)
    if config.whiten_rewards:
        rewards = scale_to_unit_variance(rewards, mask)
    if new_critic:
        experience = with_values(experience, mean_return(config, rewards, scores, mask))
    advantages, returns = advantages_and_returns(config, rewards, experience.old_values, mask)
    return Rollout(**vars(experience), scores=scores, rewards=rewards, advantages=advantages, returns=returns)


def early_rewards(experience: Experience) -> Tensor:
    """What an environment paid for all turns but the last, each at the last token of its turn: [B, T]."""
    paid = experience.turn_rewards
    if paid is None:
        return torch.zeros_like(experience.kl)
    return paid.scatter(-1, last_token_index(experience.response_mask).unsqueeze(-1), 0.0)


def advantages_and_returns(
    config: PPOConfig, rewards: Tensor, values: Tensor, response_mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Advantages (whitened if asked for) and returns, each [B, T]; returns are 0 without a critic."""
    if config.advantage == "gae":
        advantages, returns = gae(rewards, values, response_mask, config.gamma, config.gae_lambda)
    else:
        advantages, returns = critic_free_advantages(config, rewards.sum(-1), response_mask), torch.zeros_like(rewards)
    if config.whiten_advantages:
        advantages = whiten(advantages, response_mask)
    return advantages, returns


def critic_free_advantages(config: PPOConfig, totals: Tensor, response_mask: Tensor) -> Tensor:
    """From what each response earned in all [B], KL penalty included, to advantages [B, T]."""
    if config.advantage == "reward_per_token":
        return reward_per_token(totals, response_mask)
    compared = leave_one_out if config.advantage == "rloo" else group_relative
    return zero_outside(compared(totals, config.num_generations).unsqueeze(-1), response_mask)
