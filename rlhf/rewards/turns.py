"""Text or turns: what rewards receive, and the built-in rewards that read text in either form."""

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from rlhf.rewards.contract import shorten

Conversation = list[dict[str, Any]]


def text_of(said: "str | Conversation") -> str:
    """A text as it is; of a conversation what its last turn says (its text parts, where it has several kinds)."""
    if isinstance(said, str):
        return said
    content = said[-1].get("content") if said else None
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return content or ""


def as_turns(prompt: "str | Conversation") -> Conversation:
    """A conversation as it is; a text as what a user says."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


class NamedReward:
    """Base of the built-in rewards: an instance has the name of its built-in, under which trainers log it."""

    @property
    def __name__(self) -> str:
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__qualname__).lower()


class TextReward(NamedReward):
    """Base of the built-in rewards that read text.

    The methods `__call__` and `explain` of a subclass get texts, also where a trainer hands it conversations: of prompt
    and completion, and of the column `reference`, what the last turn says.
    """

    def __init_subclass__(cls) -> None:
        for name, with_texts in (("__call__", _on_lists_of_texts), ("explain", _on_texts)):
            if name in vars(cls):
                setattr(cls, name, with_texts(vars(cls)[name]))


def _on_lists_of_texts(method: Callable[..., Any]) -> Callable[..., Any]:
    as_text = _reference_of(method)

    @functools.wraps(method)
    def call(self: Any, prompts: list[Any], completions: list[Any], *args: Any, **columns: Any) -> Any:
        if "reference" in columns:
            columns["reference"] = [as_text(reference) for reference in columns["reference"]]
        return method(self, [text_of(p) for p in prompts], [text_of(c) for c in completions], *args, **columns)

    return call


def _on_texts(method: Callable[..., Any]) -> Callable[..., Any]:
    as_text = _reference_of(method)

    @functools.wraps(method)
    def explain(self: Any, prompt: Any, completion: Any, **columns: Any) -> Any:
        if "reference" in columns:
            columns["reference"] = as_text(columns["reference"])
        return method(self, text_of(prompt), text_of(completion), **columns)

    return explain


def _reference_of(method: Callable[..., Any]) -> Callable[[Any], Any]:
    """How a method gets references: as text, or None; one that names none in its signature gets others as they are."""
    compares = "reference" in inspect.signature(method).parameters

    def as_text(reference: Any) -> Any:
        is_conversation = isinstance(reference, list) and reference and all(isinstance(t, Mapping) for t in reference)
        if isinstance(reference, str) or is_conversation:
            return text_of(reference)
        if compares and reference is not None:
            what = f"{shorten(str(reference), 40)}, a {type(reference).__name__}"
            raise ValueError(f"reference is {what}; it must be text")
        return reference

    return as_text
