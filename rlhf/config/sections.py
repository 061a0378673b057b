"""Which settings a config class has, with those of its sections: names, types, defaults, sentences."""

import dataclasses
import functools
import typing
from typing import Any, NamedTuple

REQUIRED = dataclasses.MISSING


class Setting(NamedTuple):
    """One key of a config: where it belongs, its type and default (REQUIRED without one)."""

    section: type
    name: str
    hint: Any
    default: Any


@functools.cache
def hints(section: type) -> dict[str, Any]:
    """The types of a section's settings by their names."""
    return typing.get_type_hints(section)


def section_of(section: type, key: str) -> type | None:
    """The class of the section with that key, also where the key may be empty; None for a plain setting."""
    return section_in(hints(section).get(key))


def section_in(hint: Any) -> type | None:
    """The config class among the alternatives of a type; None where there is none."""
    return next(
        (kind for kind in alternatives(hint) if isinstance(kind, type) and dataclasses.is_dataclass(kind)), None
    )


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The types of a union; otherwise the type itself."""
    return typing.get_args(hint) if _is_union(hint) else (hint,)


def item_of(hint: Any) -> Any:
    """The type of the items, where one of the alternatives is a list; None otherwise."""
    lists = [kind for kind in alternatives(hint) if typing.get_origin(kind) is list]
    return typing.get_args(lists[0])[0] if lists else None


def section_items(hint: Any) -> type | None:
    """The class of a list of sections, as the rewards are; None for everything else."""
    item = item_of(hint)
    return item if isinstance(item, type) and dataclasses.is_dataclass(item) else None


def settings(config_class: type, path: str = "") -> dict[str, Setting]:
    """Every setting by its dotted name, those of sections behind the section itself."""
    found: dict[str, Setting] = {}
    for field in dataclasses.fields(config_class):
        hint = hints(config_class)[field.name]
        found[path + field.name] = Setting(config_class, field.name, hint, default_of(field))
        below = section_in(hint)
        if below is not None:
            found |= settings(below, f"{path}{field.name}.")
    return found


def default_of(field: dataclasses.Field[Any]) -> Any:
    """What a setting is where nobody sets it; REQUIRED where somebody has to."""
    if field.default_factory is not dataclasses.MISSING:
        try:
            return field.default_factory()
        except (TypeError, ValueError):  # a section in which something has to be set
            return REQUIRED
    return field.default


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) is typing.Union or type(hint).__name__ == "UnionType"
