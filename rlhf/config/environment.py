"""Who the model talks to over several turns, as a config names it."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf.config.checks import require, require_finite, require_positive
from rlhf.config.rewards import RewardSpec

ENVIRONMENTS = {
    "calculator": "rlhf.environments.calculator.Calculator",
    "guess_number": "rlhf.environments.guess_number.GuessNumber",
    "react_repair": "rlhf.environments.react_repair.ReactRepair",
}
"""The built-in ones by name."""


@dataclass(frozen=True, kw_only=True)
class EnvironmentSpec:
    """What answers the model, turn after turn.

    Args:
        name: A built-in (guess_number, calculator, react_repair), or an import path package.module.attribute, which is
            looked up in the current folder too.
        args: Arguments of its constructor, which is called for every episode.
        timeout: Seconds that it may take to begin, and for each step; None for no limit.
        max_turns: Turns of the model after which an episode that is not over is cut off.
        max_tokens: Tokens of a whole conversation, the first messages included, at which it is cut off; None takes the
            model's context. The limit of a single turn is sampling.max_new_tokens.
    """

    name: str
    args: dict[str, Any] = field(default_factory=dict)
    timeout: float | None = 60.0
    max_turns: int = 16
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        require_finite(self)
        require_positive(self, "timeout", "max_turns", "max_tokens")
        known = {*ENVIRONMENTS, *ENVIRONMENTS.values()}
        if self.name in known or ("." in self.name.strip(".") and not self.name.startswith("rlhf.environments.")):
            return
        close = difflib.get_close_matches(self.name, known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        require(
            False,
            f"unknown environment {self.name!r}: {hint}use one of {', '.join(ENVIRONMENTS)}, or a path "
            "package.module.attribute",
        )

    @property
    def metric_name(self) -> str:
        """The name under which its rewards are reported."""
        return self.name.rpartition(".")[2]


def names_of_rewards(environment: EnvironmentSpec | None, rewards: Sequence[RewardSpec]) -> list[str]:
    """Under which the components of the score are reported, what an environment pays first."""
    paid = [] if environment is None else [environment.metric_name]
    return [*paid, *(spec.metric_name for spec in rewards)]
