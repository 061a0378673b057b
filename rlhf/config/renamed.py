"""Settings under the names that they had before: each still works, and says once what it is called now."""

import functools
import typing
import warnings
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, TypeVar

from rlhf.errors import UserError

KEYS = {
    "CheckpointConfig": {"every": "save_steps", "keep": "save_total_limit"},
    "EvaluateConfig": {"samples_per_prompt": "num_generations"},
    "EvaluationSettings": {"samples_per_prompt": "num_generations"},
    "GenerateConfig": {"samples_per_prompt": "num_generations"},
    "PPOConfig": {
        "approx_kl_limit": "target_kl",
        "epochs": "num_ppo_epochs",
        "kl_horizon": "adaptive_kl_horizon",
        "kl_target": "adaptive_kl_target",
        "minibatch_size": "mini_batch_size",
        "processes": "num_processes",
        "samples_per_prompt": "num_generations",
        "score_normalisation": "score_normalization",
        "updates": "num_updates",
    },
    "RewardModelConfig": {"epochs": "num_train_epochs", "processes": "num_processes"},
    "SFTConfig": {"epochs": "num_train_epochs", "processes": "num_processes"},
    "SamplingConfig": {"max_response_tokens": "max_new_tokens"},
}
"""By the class of a section: old key to new one."""
VALUES = {("score_normalization", "standardise"): "standardize"}
"""By key and old value: the new one."""

C = TypeVar("C", bound=type)


def with_old_names(config_class: C) -> C:
    """Let a dataclass be made with the old names of its fields, and read by them."""
    init: Callable[..., None] = config_class.__init__  # type: ignore[misc]

    @functools.wraps(init)
    def translated(self: Any, **values: Any) -> None:
        init(self, **renamed(config_class, values))

    config_class.__init__ = translated  # type: ignore[misc]
    for old, new in KEYS[config_class.__name__].items():
        setattr(config_class, old, property(functools.partial(_read, new=new)))
    return config_class


def _read(config: Any, new: str) -> Any:
    return getattr(config, new)


def renamed(section: type, values: dict[str, Any], path: str = "") -> dict[str, Any]:
    """The mapping of a section with the present keys, also in the sections below it.

    Raises UserError where an old key stands beside the new one.
    """
    result: dict[str, Any] = {}
    for key, value in values.items():
        name = new_name(section, key, path)
        if name in result or (name != key and name in values):
            raise UserError(f"{path}{key} and {path}{name} are one setting; keep {path}{name}")
        below = section_of(section, name)
        if below is not None and isinstance(value, dict):
            value = renamed(below, value, f"{path}{name}.")
        result[name] = VALUES.get((name, value), value) if isinstance(value, str) else value
    return result


def renamed_option(section: type, option: str) -> str:
    """`--sampling.max_response_tokens` as it is called now; anything else as it is."""
    if not option.startswith("--"):
        return option
    name, equals, value = option.removeprefix("--").partition("=")
    parts: list[str] = []
    below: type | None = section
    for part in name.split("."):
        if below is None:
            return option
        parts.append(new_name(below, part, ".".join([*parts, ""])))
        below = section_of(below, parts[-1])
    return f"--{'.'.join(parts)}{equals}{VALUES.get((parts[-1], value), value)}"


def new_name(section: type, key: str, path: str) -> str:
    """What a key of a section is called now; warns where that is another name."""
    name = KEYS.get(section.__name__, {}).get(key, key)
    if name != key:
        warnings.warn(f"{path}{key} is now called {path}{name}", FutureWarning, stacklevel=4)
    return name


def section_of(section: type, key: str) -> type | None:
    """The dataclass of the section with that key, also where the key may be empty; None for a plain setting."""
    hint = _hints(section).get(key)
    candidates = typing.get_args(hint) or (hint,)
    return next((kind for kind in candidates if isinstance(kind, type) and is_dataclass(kind)), None)


@functools.cache
def _hints(section: type) -> dict[str, Any]:
    return typing.get_type_hints(section)
