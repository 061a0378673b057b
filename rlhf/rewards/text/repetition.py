"""Penalizes text that repeats itself, the usual way in which a policy collapses."""

import re
from collections import Counter
from typing import Any

from rlhf.rewards.turns import TextReward

_TOKEN = re.compile(r"\w+|[^\w\s]")


class Repetition(TextReward):
    """`-(1 - distinct / all)` over the runs of `n` tokens, in [-1, 0]; 0 if there is no such run.

    Tokens are words and single punctuation marks, so it works on code. Raises ValueError if `n < 1`. Code repeats
    itself honestly: choose a large `n`. Fooled by noise that never repeats.
    """

    def __init__(self, *, n: int = 8) -> None:
        if n < 1:
            raise ValueError(f"n {n} must be at least 1")
        self.n = n

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        return [self._score(self._runs(text)) for text in completions]

    def explain(self, prompt: str, completion: str, **columns: Any) -> str:
        runs = self._runs(completion)
        if not runs:
            return f"shorter than {self.n} tokens"
        (run, count), *_ = runs.most_common(1)
        return f"{len(runs)} distinct of {runs.total()} runs of {self.n} tokens; most often, {count}x: {' '.join(run)}"

    def _runs(self, text: str) -> Counter[tuple[str, ...]]:
        tokens = _TOKEN.findall(text)
        return Counter(zip(*(tokens[i:] for i in range(self.n)), strict=False))

    def _score(self, runs: Counter[tuple[str, ...]]) -> float:
        return len(runs) / runs.total() - 1.0 if runs else 0.0
