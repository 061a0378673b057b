"""What the episodes earned, as a reward among the others: a component of the score, explained and logged like them."""

from collections.abc import Sequence
from typing import Any

from rlhf.config import EnvironmentSpec
from rlhf.config.rewards import RewardSpec
from rlhf.rewards import RewardSum, WeightedReward
from rlhf.rewards.contract import LogExtra, LogMetric
from rlhf.sampling.episode import Episode


class Returns:
    """The sum of an episode's rewards; logs its turns, its ending and what the environment measured."""

    def __call__(
        self, episode: list[Episode], log_extra: LogExtra, log_metric: LogMetric, **columns: Any
    ) -> list[float]:
        if episode:
            log_extra("turns", [len(each.rewards) for each in episode])
            log_extra("ending", [each.ending for each in episode])
            log_metric("turns", sum(len(each.rewards) for each in episode) / len(episode))
            log_metric("done", sum(each.ending == "done" for each in episode) / len(episode))
        for name in sorted({name for each in episode for name in each.metrics}):
            measured = [each.metrics[name] for each in episode if name in each.metrics]
            log_metric(name, sum(measured) / len(measured), samples=len(measured))
        return [each.total for each in episode]

    def explain(self, prompt: Any, completion: Any, *, episode: Episode, **columns: Any) -> str:
        turns = [f"turn {number}: {reward:+.4g}" for number, reward in enumerate(episode.rewards, start=1)]
        return "\n".join([*turns, f"ending: {episode.ending}"])


def reward_fn(rewards: Sequence[RewardSpec], environment: EnvironmentSpec | None) -> RewardSum:
    """The sum that a config describes: its rewards, and what the environment pays; raises as `load_reward` does."""
    paid = [] if environment is None else [WeightedReward(environment.metric_name, Returns())]
    return RewardSum([*paid, *RewardSum.from_specs(rewards).rewards] if rewards else paid)
