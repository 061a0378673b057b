"""What every component family is made with: the registry, and a Maker that draws, names, styles and writes."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from string import Template
from typing import TypeVar

from react_data import source, words
from react_data.phrases import ask

T = TypeVar("T")


@dataclass(frozen=True)
class Pair:
    """A request, the component that answers it, and the words of the request the component must contain."""

    prompt: str
    completion: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """A kind of component. `short` ones fit a small model; `unseen` ones are kept for evaluation."""

    name: str
    draw: "Callable[[Maker], Pair]"
    short: bool
    unseen: bool


FAMILIES: dict[str, Family] = {}


def family(
    name: str, *, short: bool = False, unseen: bool = False
) -> "Callable[[Callable[[Maker], Pair]], Callable[[Maker], Pair]]":
    """Register the decorated function as the family `name`."""

    def register(draw: "Callable[[Maker], Pair]") -> "Callable[[Maker], Pair]":
        if name in FAMILIES:
            raise ValueError(f"family {name!r} is registered twice")
        FAMILIES[name] = Family(name, draw, short, unseen)
        return draw

    return register


class Maker:
    """Draws one example of a family.

    Families follow `closing` when a self-closing tag is a matter of taste; it is true for every other row.
    In markup, ` .title` stands for a className in the naming style drawn for this example (none at all in the
    "bare" style, unless it is written ` .title!`), and `$word` for a value.
    """

    def __init__(self, rng: Random, block: str, short: bool, closing: bool) -> None:
        self.rng = rng
        self.block = block.replace("_", "-")
        self.short = short
        self.closing = closing
        self.naming = rng.choices(("plain", "kebab", "bem", "bare", "utility"), (30, 27, 13, 18, 12))[0]
        self.style = source.Style.draw(rng, short)
        self.name = ""

    def pick(self, options: Sequence[T]) -> T:
        """One of `options`."""
        return self.rng.choice(options)

    def some(self, options: Sequence[T], count: int) -> list[T]:
        """`count` different ones of `options`."""
        return self.rng.sample(options, count)

    def chance(self, probability: float) -> bool:
        """True with `probability`."""
        return self.rng.random() < probability

    def view(self, closed: Sequence[str], plain: Sequence[str]) -> str:
        """Markup with a self-closing tag or without, as `closing` says."""
        return self.pick(closed if self.closing else plain)

    def write(
        self, name: str, view: str, /, props: str = "", body: str = "", before: str = "", **values: object
    ) -> str:
        """The source of a component.

        `props` is written "label: string = \\"Save\\"; count: number = 3"; `body` holds the statements ahead of
        the return, `before` what stands above the component. Imports from react are worked out from the code.
        """
        self.name = name
        fields = [Template(text).substitute(values) for text in (view, props, body, before)]
        return source.component(self.style, name, *(self._class_names(text) for text in fields))

    def pair(self, noun: str, detail: str, completion: str, *details: str) -> Pair:
        """The finished example; quoted words of `detail` count as details by themselves."""
        prompt = ask(self.rng, noun, detail, self.name)
        quoted = re.findall(r'"([^"]+)"', detail)
        named = [self.name] if self.name in prompt else []
        return Pair(prompt, completion, (*quoted, *details, *named))

    def _class_names(self, text: str) -> str:
        return re.sub(r" \.([a-z][a-z-]*)(!?)(?=[ />])", self._class_name, text)

    def _class_name(self, match: re.Match[str]) -> str:
        part, forced = match.groups()
        whole = part == "root"
        value = {
            "plain": self.block if whole else part,
            "kebab": self.block if whole else f"{self.block}-{part}",
            "bem": self.block if whole else f"{self.block}__{part}",
            "bare": part if forced else "",
            "utility": part if forced else self.pick(words.UTILITIES),
        }[self.naming]
        return f' className="{value}"' if value else ""


def pascal(*texts: str) -> str:
    """A component name: "Add to cart", "button" -> AddToCartButton."""
    parts = re.findall(r"[A-Za-z0-9]+", " ".join(texts))
    return "".join(part[0].upper() + part[1:] for part in parts)


def camel(*texts: str) -> str:
    """A variable name: "Full name" -> fullName."""
    name = pascal(*texts)
    return name[0].lower() + name[1:]


def slug(text: str) -> str:
    """A name for paths and ids: "Oak desk" -> oak-desk."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))


def array(values: Sequence[object], keys: str = "") -> str:
    """A JavaScript array: of strings and numbers, or of objects when `keys` names their fields."""
    if keys:
        rows = [
            "{ " + ", ".join(f"{key}: {_literal(cell)}" for key, cell in zip(keys.split(), row, strict=True)) + " }"
            for row in values
            if isinstance(row, tuple | list)
        ]
    else:
        rows = [_literal(value) for value in values]
    flat = "[" + ", ".join(rows) + "]"
    return flat if len(flat) <= 60 else "[\n" + "".join(f"  {row},\n" for row in rows) + "]"


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else f'"{value}"'
