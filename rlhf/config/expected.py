"""What is wrong with the value of a setting, in the words of the person who wrote it."""

import typing
from typing import Any, Literal

from rlhf.config.sections import alternatives, hints, item_of, section_in, section_items

LONGEST = 60
NO_CRITIC = (
    "critic is {value}; PPO without one takes its advantages from the scores: leave critic out and set "
    "advantage: rloo with num_generations: 4, say (or group_relative, or reward_per_token)"
)
NO_FLOAT16 = "{name} is 'float16', whose range is too small to train in; it must be {expected}"
NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}


def what_is_wrong(section: type, values: dict[str, Any], path: str = "") -> str | None:
    """The first value of a mapping that its setting cannot take, with what it must be; None if all is well."""
    for name, value in values.items():
        hint = hints(section).get(name)
        said = _wrong(hint, value, path + name) if hint is not None else None
        if said is not None:
            return said
    return None


def _wrong(hint: Any, value: Any, name: str) -> str | None:
    below, one = section_in(hint), section_items(hint)
    if below is not None and isinstance(value, dict):
        return what_is_wrong(below, value, f"{name}.")
    if one is not None and isinstance(value, list):
        said = (_wrong(one, item, f"{name}[{number}]") for number, item in enumerate(value))
        return next((line for line in said if line is not None), None)
    if any(_fits(kind, value) for kind in alternatives(hint)):
        return None
    if name.rpartition(".")[2] == "critic" and value in (None, False, "none", "null", "false", "no"):
        return NO_CRITIC.format(value=shown(value))
    if value == "float16":
        return NO_FLOAT16.format(name=name, expected=expected(hint))
    return f"{name} is {shown(value)}; it must be {expected(hint)}"


def expected(hint: Any) -> str:
    """What a setting of a type takes, in words."""
    words = [_words(kind) for kind in alternatives(hint)]
    return " or ".join(dict.fromkeys(words))


def shown(value: Any) -> str:
    """A value as YAML has it, cut where it is long."""
    text = {None: "null", True: "true", False: "false"}.get(value) if isinstance(value, bool | None) else None
    text = text or repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _words(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    if section_in(kind) is not None:
        return f"a mapping with keys such as {', '.join(list(hints(kind))[:3])}"
    if typing.get_origin(kind) is list:
        item = item_of(kind)
        return "a list of " + ("mappings, as in [{path: react_static}]" if section_in(item) else "texts")
    return NAMES.get(kind, "a mapping of keys to values")


def _fits(kind: Any, value: Any) -> bool:
    if typing.get_origin(kind) is Literal:
        return value in typing.get_args(kind)
    if typing.get_origin(kind) is list:
        item = item_of(kind)
        return isinstance(value, list) and all(any(_fits(k, x) for k in alternatives(item)) for x in value)
    if typing.get_origin(kind) is dict:
        return isinstance(value, dict)
    if section_in(kind) is not None:
        return False
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(kind, type) or isinstance(value, kind)
