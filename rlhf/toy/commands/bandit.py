"""`rlhf toy bandit`: train, write, draw, print."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from rlhf.toy import report
from rlhf.toy.bandit import (
    LARGE_BATCH,
    MEANS,
    REFERENCES,
    SMALL_BATCH,
    Learned,
    compare_methods,
    learn,
    optimal_policy,
    settings_with_penalty,
    total_variation,
)
from rlhf.toy.config import BanditConfig
from rlhf.toy.plots import bandit as plots


def run(config: BanditConfig) -> dict[str, Any]:
    """Train, draw, write and print everything; returns the summary.

    `total_variation` is the worst over references, betas and seeds of the distance between the policy that PPO
    found with a KL penalty and pi_ref exp(r / beta) / Z; `expected_reward` is that of each method's last policy.
    """
    curves = compare_methods(config)
    references, kl_coefs = settings_with_penalty(config)
    penalized = learn(config, "PPO", references, kl_coefs, LARGE_BATCH, config.updates)
    optimum = optimal_policy(references, kl_coefs)
    distance = total_variation(penalized.final, optimum)  # [S, C]
    expected = {m: (c.final @ torch.tensor(MEANS)).mean().item() for m, c in curves.items()}
    names = [name for name in REFERENCES for _ in config.kl_coefs]
    per_setting = [
        {"reference": name, "kl_coef": beta, "mean": mean, "worst": worst}
        for name, beta, mean, worst in zip(
            names, kl_coefs.tolist(), distance.mean(0).tolist(), distance.amax(0).tolist(), strict=True
        )
    ]
    summary = {
        "total_variation": distance.max().item(),
        "total_variation_per_setting": per_setting,
        "expected_reward": expected,
        "optimal_reward": max(MEANS),
    }
    report.write(config.output_dir, config, _records(curves, penalized, optimum), summary)
    plots.draw(config.output_dir, curves, penalized, optimum, config.kl_coefs)
    print(report.table(["method", "expected reward"], list(expected.items())), end="\n\n")
    rows = [(f"{s['reference']}, beta {s['kl_coef']:.2f}", s["mean"], s["worst"]) for s in per_setting]
    print(report.table(["PPO with a KL penalty: distance to the closed form", "mean", "worst"], rows))
    return summary


def _records(curves: dict[str, Learned], penalized: Learned, optimum: Tensor) -> Iterator[dict[str, Any]]:
    for method, learned in curves.items():
        rewards = (learned.probabilities @ torch.tensor(MEANS)).squeeze(-1)  # [updates + 1, S]
        for update, row in enumerate(rewards.tolist()):
            yield {"method": method, "pulls": update * SMALL_BATCH, "expected_reward": row}
    for update, row in enumerate(total_variation(penalized.probabilities, optimum).mean((1, 2)).tolist()):
        yield {"method": "PPO with a KL penalty", "pulls": update * LARGE_BATCH, "total_variation": row}
