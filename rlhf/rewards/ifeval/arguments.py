"""The arguments of instructions: each function returns a checked value, or raises ValueError saying what it must be."""

from typing import Any

RELATIONS = ("at least", "less than")
WORD_ENDS = frozenset(".,?!'\"")
"""Of the first word of a paragraph."""


def count(value: Any) -> int:
    """A threshold: 0 would ask for nothing, or for what cannot be."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("a whole number of at least 1")
    return value


def relation(value: Any) -> str:
    """How a count is compared."""
    if value not in RELATIONS:
        raise ValueError(f"one of {', '.join(map(repr, RELATIONS))}")
    return value


def text(value: Any) -> str:
    """Some text, without the white space around it."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("text that is not empty")
    return value.strip()


def texts(value: Any) -> tuple[str, ...]:
    """At least one text, each as it is."""
    if not isinstance(value, list | tuple) or not value or not all(isinstance(t, str) and t.strip() for t in value):
        raise ValueError("a list of at least one text, none empty")
    return tuple(value)


def word(value: Any) -> str:
    """A single word, without what ends the first word of a paragraph: nothing could be that word."""
    if len(text(value).split()) > 1 or WORD_ENDS & set(text(value)):
        raise ValueError(f"a single word without any of {' '.join(sorted(WORD_ENDS))}")
    return text(value)


def phrase(value: Any) -> str:
    """Some text that does not end in the quotation marks which are taken off a response."""
    if text(value).endswith('"'):
        raise ValueError("text that does not end in a quotation mark")
    return text(value)


def character(value: Any) -> str:
    """A letter; the published prompts count `!` and `#` too."""
    if len(text(value)) > 1:
        raise ValueError("a single character")
    return text(value)


def language(value: Any) -> str:
    """The code of a language that can be recognized."""
    from rlhf.rewards.ifeval.language import languages

    known = languages()
    if value not in known:
        raise ValueError(f"one of {', '.join(known)}")
    return value
