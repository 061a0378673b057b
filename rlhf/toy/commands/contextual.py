"""`rlhf toy contextual`: train, write, draw, print."""

from collections.abc import Iterator
from typing import Any

from rlhf.toy import report
from rlhf.toy.config import ContextualConfig
from rlhf.toy.contextual import Trained, test, train
from rlhf.toy.plots import contextual as plots


def run(config: ContextualConfig) -> dict[str, Any]:
    """Train, test, draw, write and print; returns the summary, with `gap_closed` of every seed."""
    trained = train(config)
    outcome = test(config, trained)
    gap = outcome.gap_closed
    policies = {"random": outcome.random, "PPO": outcome.ppo, "optimal": outcome.optimal}
    summary = {
        "gap_closed": gap.tolist(),
        "gap_closed_mean": gap.mean().item(),
        "expected_reward": {name: rewards.mean().item() for name, rewards in policies.items()},
    }
    report.write(config.output_dir, config, _records(trained), summary)
    plots.draw(config.output_dir, trained, outcome, config.seed)
    rows = [(name, r.mean().item(), r.mean(-1).amin().item(), r.mean(-1).amax().item()) for name, r in policies.items()]
    print(report.table(["policy", "expected reward", "worst seed", "best seed"], rows))
    print(f"\nPPO closes {gap.mean():.1%} of the gap (worst of {len(gap)} seeds {gap.min():.1%})")
    return summary


def _records(trained: Trained) -> Iterator[dict[str, Any]]:
    for update, (rewards, explained) in enumerate(zip(trained.rewards, trained.explained, strict=True)):
        yield {"update": update, "reward": rewards.tolist(), "explained_variance": explained.tolist()}
