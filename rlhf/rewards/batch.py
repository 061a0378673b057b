"""One reward on one batch: calls it, checks what it returns and what it logs, and names the sample at fault."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf.errors import RewardError, with_kind
from rlhf.rewards.arguments import arguments_for
from rlhf.rewards.calling import TimeLimitError, call
from rlhf.rewards.contract import ServiceError, Span, SpanReward, TrainerState, shorten
from rlhf.rewards.logged import Logged
from rlhf.rewards.numbers import finite, is_scalar
from rlhf.rewards.scores import WeightedReward
from rlhf.rewards.turns import text_of


@dataclass(frozen=True)
class Batch:
    """One component on B samples.

    `per_sample` holds what has an item per sample: prompts, completions, columns of the data, tokens.
    """

    reward: WeightedReward
    per_sample: Mapping[str, Sequence[Any]]
    state: TrainerState
    logged: Logged = field(default_factory=Logged)

    def __len__(self) -> int:
        return len(self.per_sample["prompts"])

    def items(self) -> list[SpanReward | None]:
        """One checked item per sample; raises RewardError as `RewardSum` says."""
        output = self._call()
        if not hasattr(output, "__len__") or isinstance(output, str | bytes | Mapping) or is_scalar(output):
            raise self._error(f"returned a {type(output).__name__} instead of a list", 0)
        if len(output) != len(self):
            raise self._error(f"returned {len(output)} scores for {len(self)} samples", 0)
        for column, values in self.logged.extra.items():
            if len(values) != len(self):
                raise self._error(f"logged {len(values)} values of {column!r} for {len(self)} samples", 0)
        return [self._checked(item, i) for i, item in enumerate(output)]

    def _call(self) -> Any:
        function = self.reward.function
        if isinstance(function, functools.partial):
            for name in function.keywords.keys() & self.per_sample.keys():
                raise self._error(f"argument {name!r} is also a column of the data", 0)
        try:
            arguments_for(function, self._offered(0, 0, self.logged))
        except ValueError as error:
            raise RewardError(f"reward {self.reward.name!r} {error}") from error
        try:
            return self._call_range(0, len(self), self.logged)
        except TimeLimitError:
            raise self._out_of_time() from None
        except ServiceError as error:
            raise RewardError(f"reward {self.reward.name!r}: {error}") from error
        except Exception as error:
            raise self._error(f"raised {with_kind(error)[:300]}", self._first_failing()) from error

    def _call_range(self, start: int, stop: int, logged: Logged | None = None) -> Any:
        function, limit = self.reward.function, self.reward.timeout
        arguments = arguments_for(function, self._offered(start, stop, logged or Logged()))
        return call(function, arguments, None if limit is None else limit * (stop - start))

    def _offered(self, start: int, stop: int, logged: Logged) -> dict[str, Any]:
        return {
            **{name: [own(value) for value in values[start:stop]] for name, values in self.per_sample.items()},
            "trainer_state": self.state,
            "log_extra": logged.log_extra,
            "log_metric": logged.log_metric,
        }

    def _out_of_time(self) -> RewardError:
        """The error for a batch that took too long: names the first sample that does so on its own, if one does."""
        limit, n = self.reward.timeout, len(self)
        assert limit is not None
        for i in range(n if n > 1 else 0):
            try:
                self._call_range(i, i + 1)
            except TimeLimitError:
                return self._error(f"ran out of time: more than {limit:g} s for one completion", i)
            except Exception:
                continue  # the batch did not get this far: what is asked is who was slow
        return self._error(f"ran out of time: more than {limit * n:g} s for {n} completions at {limit:g} s each", 0)

    def _first_failing(self) -> int:
        """A sample that makes the reward raise, by bisection: at most as slow as the batch once more."""
        start, stop = 0, len(self)
        while stop - start > 1:
            middle = (start + stop) // 2
            try:
                self._call_range(start, middle)
                start = middle
            except Exception:
                stop = middle
        return start

    def _checked(self, item: Any, i: int) -> SpanReward | None:
        if item is None:
            return None
        if not isinstance(item, SpanReward):
            return SpanReward(self._number(item, i))
        spans = tuple(self._checked_span(span, i) for span in item.spans)
        return SpanReward(self._number(item.score, i), spans)

    def _checked_span(self, span: Span, i: int) -> Span:
        length = len(text_of(self.per_sample["completions"][i]))
        if not 0 <= span.start < span.end <= length:
            raise self._error(f"gave a span {span.start}:{span.end} outside its {length} characters", i)
        return Span(int(span.start), int(span.end), self._number(span.value, i))

    def _number(self, value: Any, i: int) -> float:
        try:
            return finite(value)
        except ValueError as error:
            raise self._error(f"returned {error}", i) from error

    def _error(self, problem: str, i: int) -> RewardError:
        prompt, completion = (shorten(text_of(self.per_sample[name][i])) for name in ("prompts", "completions"))
        where = f"prompt {prompt}, completion {completion}"
        return RewardError(f"reward {self.reward.name!r} {problem} (sample {i}: {where})")


def own(value: Any) -> Any:
    """A copy of what JSON holds, so that a reward may change what it is given and the next one sees nothing of it."""
    if type(value) is dict:
        return {key: own(item) for key, item in value.items()}
    return [own(item) for item in value] if type(value) is list else value
