"""The critic of the PPO stage."""

from dataclasses import dataclass, fields
from typing import Any, Literal

from rlhf.config.checks import require, require_finite, require_not_negative

Critic = Literal["shared", "detached", "adapter", "branch", "separate"]
OF_THE_CRITIC = (
    "critic", "critic_layers", "keep_critic", "critic_learning_rate", "vf_coef", "value_clip_range", "gamma",
    "gae_lambda",
)  # fmt: skip
WITH_ADAPTERS = ("adapter", "branch")
"""Critics that have adapters of their own."""


@dataclass(frozen=True, kw_only=True)
class ValueWarmup:
    """Updates that train only the critic, before the policy moves.

    Ends as soon as the critic explains enough of the returns of a batch it has not seen, rather than after a fixed
    count.

    Args:
        explained_variance: End the warm-up once the critic explains this share of the variance of the returns.
        max_updates: Longest warm-up, in updates; 0 is no warm-up.
    """

    explained_variance: float = 0.3
    max_updates: int = 0

    def __post_init__(self) -> None:
        require_finite(self)
        require_not_negative(self, "max_updates")


def require_no_critic(config: Any) -> None:
    """Raise UserError for what a PPOConfig has set of a critic, whose advantage asks none."""
    defaults = {field.name: field.default for field in fields(config)}
    is_set = {name: getattr(config, name) != defaults[name] for name in OF_THE_CRITIC}
    is_set["value_warmup.max_updates"] = config.value_warmup.max_updates > 0
    names = [name for name, changed in is_set.items() if changed]
    require(
        not names,
        f"{' and '.join(names)} {'are' if len(names) > 1 else 'is'} set, but advantage is {config.advantage}, which "
        f"asks no critic; leave {'them' if len(names) > 1 else 'it'} out",
    )
    require(
        not config.whiten_rewards,
        f"whiten_rewards is true, but advantage {config.advantage} sums the rewards of a response, each of which that "
        "shifts: long responses would be paid for their length; leave it out",
    )


def require_critic(critic: Critic, layers: int | None, with_adapters: bool, is_used: bool) -> None:
    """Raise UserError for a critic that the policy has no place for, or blocks of a branch where there is none."""
    require(
        layers is None or critic == "branch",
        f"critic_layers is {layers}, but critic is {critic}; it is for critic: branch",
    )
    require(
        critic != "separate" or not with_adapters,
        "critic is separate, a copy of the whole model, which goes with lora: null; use critic: branch, or adapter",
    )
    require(
        critic not in WITH_ADAPTERS or with_adapters or not is_used,
        f"critic is {critic}, but lora is null, so that there are no adapters; use critic: shared, detached or "
        "separate",
    )
