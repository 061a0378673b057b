"""From an entry in the YAML to a callable."""

import difflib
import functools
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from rlhf.config.rewards import BUILTINS, OURS, RewardSpec
from rlhf.errors import RewardError, with_kind
from rlhf.extras import EXTRAS, require_extra
from rlhf.rewards.arguments import require_options


def load_reward(spec: RewardSpec) -> Callable[..., Any]:
    """The callable that `spec` describes.

    A class is instantiated with `args`; any other callable gets them at each call. Raises `RewardError` if
    the path leads nowhere or to something that cannot be called, or if the constructor refuses `args`.
    """
    target = find(spec.path)
    if isinstance(target, type):
        try:
            require_options(target, spec.args)
            target = target(**spec.args)
        except (TypeError, ValueError) as error:
            raise RewardError(f"reward {spec.path!r}: {error}") from error
    elif spec.args and callable(target):
        target = functools.partial(target, **spec.args)
    if not callable(target):
        raise RewardError(f"reward {spec.path!r} cannot be called: it is a {type(target).__name__}")
    return target


def find(path: str) -> Any:
    """What the path of a reward leads to; raises RewardError where that is nothing."""
    return imported(BUILTINS.get(path.removeprefix(OURS), path), f"reward {path!r}", RewardError)


def imported(path: str, what: str, error_class: type[Exception]) -> Any:
    """What an import path leads to; raises an error that begins with `what` where that is nothing."""
    module_name, _, attribute = path.rpartition(".")
    _make_current_folder_importable()
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        if isinstance(error, ImportError) and error.name in EXTRAS:
            require_extra(error.name, what, error_class)
        raise error_class(f"{what}: cannot import {module_name!r}: {with_kind(error)}") from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        close = difflib.get_close_matches(attribute, dir(module), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise error_class(f"{what}: module {module_name!r} has no {attribute!r}{hint}") from None


def _make_current_folder_importable() -> None:
    # A console script does not look there. Last, so that a stray data.py shadows no installed package.
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)
