"""Settings under the names that they had before: each still works, and warns once with its new name."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from rlhf.config.sections import section_of
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


def new_name(section: type, key: str, path: str) -> str:
    """What a key of a section is called now; warns where that is another name."""
    name = present_name(section, key)
    if name != key:
        warnings.warn(f"{path}{key} is now called {path}{name}", FutureWarning, stacklevel=4)
    return name


def present_name(section: type, key: str) -> str:
    """The same without a warning."""
    return KEYS.get(section.__name__, {}).get(key, key)
