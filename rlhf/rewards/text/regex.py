"""Rewards a match of a regular expression."""

import re
from typing import Any

from rlhf.rewards.turns import TextReward


class Regex(TextReward):
    """1.0 if `pattern` is found in the completion (`re.search`), else 0.0.

    Anchor it with `\\A` and `\\Z` to demand a format of the whole text; inline flags such as `(?si)` work.
    Raises ValueError if the pattern does not compile. Completions are hostile input: a pattern with nested
    repetition can take exponential time. Fooled by the shortest text that matches.
    """

    def __init__(self, pattern: str) -> None:
        try:
            self.pattern = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"pattern {pattern!r} does not compile: {error}") from error

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        return [float(self.pattern.search(text) is not None) for text in completions]

    def explain(self, prompt: str, completion: str, **columns: Any) -> str:
        match = self.pattern.search(completion)
        return f"found {match[0][:60]!r}" if match else f"no match of {self.pattern.pattern!r}"
