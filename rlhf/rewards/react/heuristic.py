"""Looks for JSX by substring and compares lengths: cheap, and easily fooled."""

from typing import Any

from rlhf.rewards.turns import TextReward

BASE = 1.0
JSX_BONUS = 0.5
JSX_MARKS = ("return", "<", "/>")
LENGTH_PENALTY = 0.1


class ReactHeuristic(TextReward):
    """`1.0 + 0.5 [return, < and /> all occur] - 0.1 |len(completion) - len(reference)| / max(1, len(reference))`.

    Lengths are in characters of the raw text, code fences included. Where `reference` is None the reward
    does not apply. Easily fooled: 300 x `<br/>` after a `return` scores like a component.
    """

    def __call__(
        self, prompts: list[str], completions: list[str], reference: list[str | None], **columns: list[Any]
    ) -> list[float | None]:
        return [
            None if ref is None else BASE + _bonus(text) - _penalty(text, ref)
            for text, ref in zip(completions, reference, strict=True)
        ]

    def explain(self, prompt: str, completion: str, *, reference: str | None, **columns: Any) -> str:
        if reference is None:
            return "does not apply: the row has no reference"
        missing = [repr(mark) for mark in JSX_MARKS if mark not in completion]
        found = f"{', '.join(missing)} missing" if missing else "return, < and /> found"
        lengths = f"{len(completion)} characters, reference {len(reference)}"
        return (
            f"{BASE:.1f} base, +{_bonus(completion):.1f} JSX marks ({found}), "
            f"-{_penalty(completion, reference):.4f} length ({lengths})"
        )


def _bonus(text: str) -> float:
    return JSX_BONUS if all(mark in text for mark in JSX_MARKS) else 0.0


def _penalty(text: str, reference: str) -> float:
    return LENGTH_PENALTY * abs(len(text) - len(reference)) / max(1, len(reference))
