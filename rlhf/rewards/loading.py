"""From an entry in the YAML to a callable."""

import functools
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from rlhf.config.rewards import BUILTINS, RewardSpec
from rlhf.errors import RewardError, with_kind
from rlhf.extras import EXTRAS, require_extra


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
        if isinstance(error, ImportError) and error.name in EXTRAS:
            require_extra(error.name, f"reward {path!r}", RewardError)
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
