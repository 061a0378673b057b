"""Rewards words that must occur, and forbids others."""

import re
from collections.abc import Sequence
from typing import Any

from rlhf.rewards.turns import TextReward


class Keywords(TextReward):
    """Share of `words` that occur, in [0, 1]; 0 if one of `forbidden` does.

    Case is ignored, and a word counts only as a whole: "list" is not in "listen". Raises ValueError if `words`
    is empty or holds an empty word. Fooled by the bare list of words.
    """

    def __init__(self, words: Sequence[str], *, forbidden: Sequence[str] = ()) -> None:
        for name, given in (("words", words), ("forbidden", forbidden)):
            if isinstance(given, str) or not all(isinstance(word, str) for word in given):
                raise ValueError(f"{name} is {given!r}; it must be a list of texts")
        if not words or not all([*words, *forbidden]):
            raise ValueError(f"words {list(words)} and forbidden {list(forbidden)}: need at least one word, none empty")
        self.words = {word: _whole_word(word) for word in words}
        self.forbidden = {word: _whole_word(word) for word in forbidden}

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        return [self._score(text) for text in completions]

    def explain(self, prompt: str, completion: str, **columns: Any) -> str:
        missing = [word for word, pattern in self.words.items() if not pattern.search(completion)]
        forbidden = [word for word, pattern in self.forbidden.items() if pattern.search(completion)]
        return f"missing: {', '.join(missing) or 'none'}; forbidden: {', '.join(forbidden) or 'none'}"

    def _score(self, text: str) -> float:
        if any(pattern.search(text) for pattern in self.forbidden.values()):
            return 0.0
        return sum(bool(pattern.search(text)) for pattern in self.words.values()) / len(self.words)


def _whole_word(word: str) -> re.Pattern[str]:
    # Not \b, which finds no boundary next to a word such as "C++".
    return re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)
