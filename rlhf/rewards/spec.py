"""Rewards by name: from an entry in the YAML to a callable."""

import functools
import importlib
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rlhf.errors import with_kind
from rlhf.rewards.contract import RewardError

BUILTINS = {
    "instructions": "rlhf.rewards.instructions.reward.Instructions",
    "json_valid": "rlhf.rewards.json_valid.JsonValid",
    "keywords": "rlhf.rewards.keywords.Keywords",
    "length": "rlhf.rewards.length.Length",
    "react_error_free": "rlhf.rewards.react_parses.ReactErrorFree",
    "react_full": "rlhf.rewards.react_full.ReactFull",
    "react_heuristic": "rlhf.rewards.react_heuristic.ReactHeuristic",
    "react_match": "rlhf.rewards.react_match.ReactMatch",
    "react_parses": "rlhf.rewards.react_parses.ReactParses",
    "react_render": "rlhf.rewards.react_render.ReactRender",
    "react_static": "rlhf.rewards.react_static.ReactStatic",
    "react_structure": "rlhf.rewards.react_structure.ReactStructure",
    "regex": "rlhf.rewards.regex.Regex",
    "repetition": "rlhf.rewards.repetition.Repetition",
    "reward_model": "rlhf.rewards.reward_model.RewardModel",
}


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


def load_reward(spec: RewardSpec) -> Callable[..., Any]:
    """The callable that `spec` describes.

    A class is instantiated with `args`; any other callable gets them at each call. Raises `RewardError` if
    the path leads nowhere or to something that cannot be called, or if the constructor refuses `args`.
    """
    target = _find(spec.path)
    if isinstance(target, type):
        try:
            target = target(**spec.args)
        except (TypeError, ValueError) as error:
            raise RewardError(f"reward {spec.path!r}: {error}") from error
    elif spec.args and callable(target):
        target = functools.partial(target, **spec.args)
    if not callable(target):
        raise RewardError(f"reward {spec.path!r} cannot be called: it is a {type(target).__name__}")
    return target


def _find(path: str) -> Any:
    module_name, _, attribute = BUILTINS.get(path, path).rpartition(".")
    if not module_name or not attribute:
        known = ", ".join(BUILTINS)
        raise RewardError(f"unknown reward {path!r}: use one of {known}, or a path package.module.attribute")
    _make_current_folder_importable()
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise RewardError(f"reward {path!r}: cannot import {module_name!r}: {with_kind(error)}") from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise RewardError(f"reward {path!r}: module {module_name!r} has no {attribute!r}") from None


def _make_current_folder_importable() -> None:
    # A console script does not look there. Last, so that a stray data.py shadows no installed package.
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)
