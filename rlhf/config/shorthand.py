"""Short forms that people write for a setting, spelled out: `model: gpt2`, `rewards: length`, `dtype: bf16`."""

from typing import Any

from rlhf.config.common import ModelConfig, TrackingConfig
from rlhf.config.data import DataConfig
from rlhf.config.environment import EnvironmentSpec
from rlhf.config.rewards import RewardSpec
from rlhf.config.sections import alternatives, hints, item_of, section_in, section_items

TEXT_FOR = {ModelConfig: "name_or_path", DataConfig: "train", RewardSpec: "path", EnvironmentSpec: "name"}
"""The setting of a section that a text in the section's place stands for."""
DTYPES = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp32": "float32",
    "float": "float32",
    "half": "float16",
}
WANDB = {False: "disabled", None: "disabled", True: "auto", "false": "disabled", "true": "auto"}


def spelled_out(section: type, values: dict[str, Any]) -> dict[str, Any]:
    """A mapping of a section with its short forms, also those of sections below, as the classes have them."""
    return {name: _value(section, name, value) for name, value in values.items()}


def _value(section: type, name: str, value: Any) -> Any:
    hint = hints(section).get(name)
    if section is ModelConfig and name == "dtype" and isinstance(value, str):
        plain = value.lower().removeprefix("torch.")
        return DTYPES.get(plain, plain)
    if section is TrackingConfig and name == "wandb" and (value is None or isinstance(value, bool | str)):
        return WANDB.get(value.lower() if isinstance(value, str) else value, value)
    one = section_items(hint)
    if one is not None:
        items = [value] if isinstance(value, str | dict) else value
        return [_section(one, item) for item in items] if isinstance(items, list) else items
    if item_of(hint) is str and isinstance(value, str) and str not in alternatives(hint):
        return [value]
    below = section_in(hint)
    return value if below is None else _section(below, value)


def _section(section: type, value: Any) -> Any:
    if isinstance(value, str) and section in TEXT_FOR:
        return {TEXT_FOR[section]: value}
    return spelled_out(section, value) if isinstance(value, dict) else value
