"""What a PPO run watches for in its own metrics."""

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.config.checks import require, require_finite, require_positive
from rlhf.config.rewards import RewardSpec


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """When a run warns about its own metrics.

    Args:
        kl_limit: Nats per response above which the policy counts as having left the reference; None is 50, or half a
            nat per token where responses begin with fewer than 100. With adaptive_kl_target set, three times that
            decides.
        gold: Name of a reward that is measured but not trained on (weight 0): when it falls while the score rises,
            the policy is exploiting the rewards that it is trained on.
        stop_on_hacking: End the run there, with the policy as it is.
    """

    kl_limit: float | None = None
    gold: str | None = None
    stop_on_hacking: bool = False

    def __post_init__(self) -> None:
        require_finite(self)
        require_positive(self, "kl_limit")
        require(
            self.gold is not None or not self.stop_on_hacking,
            "watch.stop_on_hacking needs watch.gold, the name of a reward with weight 0 to compare with",
        )


def require_untrained_gold(watch: WatchConfig, rewards: Sequence[RewardSpec]) -> None:
    """Raise UserError unless watch.gold, where it is set, names one of the rewards and that one has weight 0."""
    if watch.gold is None:
        return
    weights = {spec.metric_name: spec.weight for spec in rewards}
    known = ", ".join(weights)
    require(watch.gold in weights, f"watch.gold is {watch.gold!r}; it must be one of the rewards: {known}")
    weight = weights[watch.gold]
    require(weight == 0, f"watch.gold {watch.gold!r} has weight {weight:g}; it must not be trained on: weight 0")
