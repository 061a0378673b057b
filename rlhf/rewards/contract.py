"""What a reward is: the signature, what it is given, and the extension for process rewards.

A reward is any callable `reward(prompts, completions, **columns)` that returns one item per sample: the
signature of TRL's `GRPOTrainer`, so a reward written for it works here unchanged. An item is

* a number: the score of the sample;
* `None`: the reward does not apply to this sample;
* a `SpanReward`: a score, and besides it amounts that land on stretches of the completion.

It may be async: a coroutine function, or an object whose `__call__` is one.

`prompts` and `completions` are strings. Where the data holds conversations, a prompt is its list of messages and a
completion is `[{"role": "assistant", "content": ...}]`. Besides the columns of the data a reward is given, if it takes
them (by name or by `**kwargs`):

* `completion_ids`: the tokens of each completion, EOS included; absent where texts are scored that nobody sampled;
* `trainer_state`: a `TrainerState`;
* `log_extra(column, values)`: adds a column to the table of samples, one value per sample;
* `log_metric(name, value)`: adds a metric of this batch; the mean weighs batches, of all processes, by their samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from rlhf.errors import RewardError


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


@dataclass(frozen=True)
class TrainerState:
    """How far the training is, by the names of `transformers.TrainerState`.

    Attributes:
        global_step: updates that are done.
        max_steps: updates of the whole run.
        epoch: passes over the prompts that are done, with fractions; None where prompts are made on the fly.
        is_world_process_zero: True on the first process.

    What is scored outside of training is scored as at its end: 1 update of 1 is done.
    """

    global_step: int = 1
    max_steps: int = 1
    epoch: float | None = 1.0
    is_world_process_zero: bool = True


Item = float | SpanReward | None
LogExtra = Callable[[str, Sequence[Any]], None]


class LogMetric(Protocol):
    """Logs a metric of the batch: the mean of all its samples, or of so many of them."""

    def __call__(self, name: str, value: float, samples: int = 0) -> None: ...


class ServiceError(RewardError):
    """A service that a reward asks does not answer as agreed; no sample is at fault."""


class RewardFunction(Protocol):
    """Scores a batch; `columns` are the dataset's other columns, among them `reference`, and what else is given."""

    def __call__(self, *, prompts: list[Any], completions: list[Any], **columns: Any) -> list[Item]: ...


@runtime_checkable
class Explains(Protocol):
    """A reward that can also say, in words, how the score of one sample comes about."""

    def explain(self, prompt: Any, completion: Any, **columns: Any) -> str: ...


def shorten(text: str, limit: int = 80) -> str:
    """`text` as a quoted one-line literal, cut to `limit` characters of the original."""
    return repr(text) if len(text) <= limit else f"{text[:limit]!r}..."
