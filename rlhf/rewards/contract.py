"""What a reward is: the signature, the extension for process rewards, and the error.

A reward is any callable `reward(prompts, completions, **columns)` that returns one item per sample: the
signature of TRL's `GRPOTrainer`, so a reward written for it works here unchanged. An item is

* a number: the score of the sample;
* `None`: the reward does not apply to this sample;
* a `SpanReward`: a score, and besides it amounts that land on stretches of the completion.

It may be async: a coroutine function, or an object whose `__call__` is one.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Span:
    """The amount `value`, earned once by the characters `completion[start:end]`.

    A stage hands it to the tokens that cover these characters; over them it adds up to `value`.
    """

    start: int
    end: int
    value: float


@dataclass(frozen=True)
class SpanReward:
    """A process reward: `score` for the sample as a whole, and `spans` in addition to it."""

    score: float
    spans: tuple[Span, ...] = ()


Item = float | SpanReward | None


class RewardFunction(Protocol):
    """Scores a batch; `columns` are the dataset's other columns, among them `reference`."""

    def __call__(self, *, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[Item]: ...


@runtime_checkable
class Explains(Protocol):
    """A reward that can also say, in words, how the score of one sample comes about."""

    def explain(self, prompt: str, completion: str, **columns: Any) -> str: ...


def shorten(text: str, limit: int = 80) -> str:
    """`text` as a quoted one-line literal, cut to `limit` characters of the original."""
    return repr(text) if len(text) <= limit else f"{text[:limit]!r}..."
