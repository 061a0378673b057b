"""The result of one check."""

from typing import Literal, NamedTuple

Verdict = Literal["ok", "warning", "failure"]


class Check(NamedTuple):
    """What was looked at and what was found.

    Attributes:
        name: What was looked at.
        verdict: failure where a run would be wasted or wrong, warning where it may be.
        found: The number that was measured, with its limit, in words.
        fix: What to change; empty if all is well.
    """

    name: str
    verdict: Verdict
    found: str
    fix: str = ""


def ok(name: str, found: str) -> Check:
    """Nothing to do."""
    return Check(name, "ok", found)


def warning(name: str, found: str, fix: str) -> Check:
    """The run may be worse than it could be."""
    return Check(name, "warning", found, fix)


def failure(name: str, found: str, fix: str) -> Check:
    """The run would fail, or learn the wrong thing."""
    return Check(name, "failure", found, fix)
