"""The statistics of one step under the names that TRL 0.11 gave them."""

import math
from typing import Any

import torch
from torch import Tensor

from rlhf.classic.shapes import Places, query_rows, response_rows
from rlhf.classic.update import TRAIN_STATS
from rlhf.maths.tensors import masked_mean, masked_moments
from rlhf.ppo.rollout import Rollout
from rlhf.ppo.update import Metrics

RENAMED = {
    "ppo/learning_rate": "policy/learning_rate",
    "ppo/loss/policy": "policy/loss",
    "ppo/loss/value": "critic/loss",
    "ppo/policy/approxkl": "policy/approx_kl",
    "ppo/policy/clipfrac": "policy/clip_fraction",
    "ppo/policy/policykl": "policy/approx_kl_k1",
    "ppo/policy/ratio": "policy/ratio_mean",
    "ppo/optimizer_steps": "policy/steps",
    "ppo/skipped_steps": "policy/skipped_steps",
    "ppo/val/clipfrac": "critic/clip_fraction",
    "time/ppo/compute_advantages": "time/exchange",
    "time/ppo/compute_rewards": "time/exchange",
    "time/ppo/optimize_step": "time/update",
}
"""Means over the optimizer steps, their number, and times: the names here and in `rlhf ppo`."""


def classic_stats(rollout: Rollout, metrics: Metrics, vf_coef: float) -> dict[str, Any]:
    """TRL's keys from a rollout and its metrics: floats, and numpy arrays where a distribution is meant.

    What TRL averaged over the minibatches although it needs no gradient (entropy, values, their error) is measured
    before the update. A statistic of the optimizer steps is NaN when none was taken. What the `loss` of a subclass
    measures besides is there too.
    """
    stats: dict[str, Any] = {name: metrics.get(ours, float("nan")) for name, ours in RENAMED.items()}
    stats["ppo/loss/total"] = stats["ppo/loss/policy"] + vf_coef * stats["ppo/loss/value"]
    stats |= objective_stats(rollout, metrics["objective/kl_coef"])
    stats |= critic_stats(rollout)
    stats |= length_stats("queries", rollout.prompt_lengths) | length_stats("responses", rollout.lengths)
    phases = {name: seconds for name, seconds in metrics.items() if name.startswith("time/") and "per_" not in name}
    stats["time/ppo/forward_pass"] = phases["time/reference"] + phases["time/evaluation"]
    stats["time/ppo/total"] = sum(phases.values())
    return stats | {name: value for name, value in metrics.items() if name.startswith("ppo/")}


def objective_stats(rollout: Rollout, kl_coef: float) -> dict[str, Any]:
    """Scores, KL and entropy; objective/* are sums over a response, ppo/policy/entropy is per token."""
    mask = rollout.response_mask
    kl = (rollout.old_logprobs - rollout.ref_logprobs).sum(-1)
    return {
        "objective/kl": kl.mean().item(),
        "objective/kl_dist": kl.numpy(force=True),
        "objective/logprobs": rollout.old_logprobs.numpy(force=True),
        "objective/ref_logprobs": rollout.ref_logprobs.numpy(force=True),
        "objective/kl_coef": kl_coef,
        "objective/entropy": -rollout.old_logprobs.sum(-1).mean().item(),
        "ppo/mean_non_score_reward": -kl_coef * masked_mean(rollout.kl, mask).item(),
        "ppo/mean_scores": rollout.scores.mean().item(),
        "ppo/std_scores": sample_std(rollout.scores),
        "ppo/policy/entropy": masked_mean(rollout.entropy, mask).item(),
        "ppo/policy/advantages": rollout.advantages[mask].numpy(force=True),
        "ppo/policy/advantages_mean": masked_mean(rollout.advantages, mask).item(),
    }


def critic_stats(rollout: Rollout) -> dict[str, float]:
    """Returns, and the values before the update, over all response tokens."""
    mask = rollout.response_mask
    returns_mean, returns_var = masked_moments(rollout.returns, mask)
    values_mean, values_var = masked_moments(rollout.old_values, mask)
    error = masked_mean((rollout.old_values - rollout.returns) ** 2, mask)
    stats = {
        "ppo/returns/mean": returns_mean,
        "ppo/returns/var": returns_var,
        "ppo/val/mean": values_mean,
        "ppo/val/var": values_var,
        "ppo/val/vpred": values_mean,
        "ppo/val/error": error,
        "ppo/val/var_explained": 1 - error / returns_var,
    }
    return {name: value.item() for name, value in stats.items()}


def length_stats(name: str, lengths: Tensor) -> dict[str, Any]:
    """Tokens of queries or responses: mean, standard deviation, and each of them."""
    lengths = lengths.float()
    return {
        f"tokens/{name}_len_mean": lengths.mean().item(),
        f"tokens/{name}_len_std": sample_std(lengths),
        f"tokens/{name}_dist": lengths.numpy(force=True),
    }


def sample_std(x: Tensor) -> float:
    """Standard deviation with divisor n - 1; 0 for a single value."""
    return x.std(correction=min(1, len(x) - 1)).item()


def step_data(rollout: Rollout, metrics: Metrics) -> dict[str, Any]:
    """What TRL's `record_step_stats` is given, on its shapes."""
    places, width = Places.of(rollout), rollout.sequence_ids.shape[1] - 1
    kl_coef = metrics["objective/kl_coef"]
    names = {
        "masks": rollout.response_mask, "kls": rollout.kl, "logprobs": rollout.old_logprobs,
        "ref_logprobs": rollout.ref_logprobs, "non_score_reward": -kl_coef * rollout.kl,
    }  # fmt: skip
    train_stats = {trl: torch.tensor([metrics.get(ours, math.nan)]) for trl, ours in TRAIN_STATS.items()}
    return {
        "kl_coef": kl_coef,
        "scores": rollout.scores,
        "queries": query_rows(rollout),
        "responses": response_rows(rollout),
        "train_stats": train_stats,
    } | {name: places.along_sequence(x, width) for name, x in names.items()}


def as_numpy(stats: dict[str, Any]) -> dict[str, Any]:
    """Tensors of one number as floats, others as arrays."""
    return {
        name: (x.item() if x.numel() == 1 else x.detach().float().numpy(force=True)) if torch.is_tensor(x) else x
        for name, x in stats.items()
    }


def reward_logs(rewards: list[float]) -> dict[str, Any]:
    """env/*: mean, standard deviation and each of the rewards of a step."""
    x = torch.tensor(rewards)
    return {"env/reward_mean": x.mean().item(), "env/reward_std": sample_std(x), "env/reward_dist": x.numpy()}
