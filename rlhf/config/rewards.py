"""One reward of the weighted sum, as a config names it."""

import difflib
import math
from dataclasses import dataclass, field
from typing import Any

from rlhf.config.checks import require
from rlhf.errors import RewardError

BUILTINS = {
    "classifier": "rlhf.rewards.text_classifier.Classifier",
    "instructions": "rlhf.rewards.ifeval.reward.Instructions",
    "json_valid": "rlhf.rewards.text.json_valid.JsonValid",
    "judge": "rlhf.rewards.remote.judge.Judge",
    "keywords": "rlhf.rewards.text.keywords.Keywords",
    "length": "rlhf.rewards.text.length.Length",
    "react_error_free": "rlhf.rewards.react.parses.ReactErrorFree",
    "react_full": "rlhf.rewards.react.full.ReactFull",
    "react_heuristic": "rlhf.rewards.react.heuristic.ReactHeuristic",
    "react_match": "rlhf.rewards.react.match.ReactMatch",
    "react_parses": "rlhf.rewards.react.parses.ReactParses",
    "react_render": "rlhf.rewards.react.renders.ReactRender",
    "react_static": "rlhf.rewards.react.static.ReactStatic",
    "react_structure": "rlhf.rewards.react.structure.ReactStructure",
    "regex": "rlhf.rewards.text.regex.Regex",
    "repetition": "rlhf.rewards.text.repetition.Repetition",
    "reward_model": "rlhf.rewards.learned.RewardModel",
    "server": "rlhf.rewards.remote.server.Server",
}
OURS = "rlhf.rewards."


@dataclass(frozen=True, kw_only=True)
class RewardSpec:
    """One reward of the sum.

    Attributes:
        path: a built-in name such as `react_heuristic`, or an import path `package.module.attribute`,
            which is looked up in the current folder too.
        weight: factor in the sum; 0 logs the reward without training on it.
        name: how metrics call it; by default the last part of `path`.
        args: arguments: of the constructor if the path leads to a class, else keyword arguments that are
            added to each call.
        timeout: seconds per completion: a batch of n may take n times as long; None for no limit.
        clip: scores are clamped to plus or minus this before they are weighted; None for no clipping. What is
            logged is the score before clipping; spans are not clipped.
    """

    path: str
    weight: float = 1.0
    name: str | None = None
    args: dict[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    clip: float | None = None

    def __post_init__(self) -> None:
        require_known(self.path)
        if not math.isfinite(self.weight):
            raise RewardError(f"reward {self.path!r}: weight {self.weight} is not a finite number")
        for name in ("timeout", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise RewardError(f"reward {self.path!r}: {name} {value} must be finite and greater than 0")

    @property
    def metric_name(self) -> str:
        """The name under which the reward's scores are reported."""
        return self.name or self.path.rpartition(".")[2]


def require_known(path: str) -> None:
    """Raise RewardError, with the closest name, for a path that can be nothing but a misspelled built-in."""
    ours = {*BUILTINS, *BUILTINS.values(), *(OURS + name for name in BUILTINS)}
    if path in ours or ("." in path.strip(".") and not path.startswith(OURS)):
        return
    close = difflib.get_close_matches(path, ours, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    known = ", ".join(BUILTINS)
    raise RewardError(f"unknown reward {path!r}: {hint}use one of {known}, or a path package.module.attribute")


def require_something_to_learn(rewards: list[RewardSpec], has_environment: bool) -> None:
    """Raise UserError unless a reward, or an environment, says what is good."""
    require(
        bool(rewards) or has_environment,
        "rewards is empty; name at least one, for example rewards: [{path: react_heuristic}], or an environment",
    )
    require(
        any(spec.weight for spec in rewards) or has_environment,
        "all rewards have weight 0, so that there is nothing to learn; give one a weight",
    )
