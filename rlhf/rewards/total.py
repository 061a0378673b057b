"""The weighted sum of several rewards, with every component checked and kept on its own."""

import functools
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.config.rewards import RewardSpec
from rlhf.errors import RewardError, with_kind
from rlhf.rewards.calling import TimeLimitError, call
from rlhf.rewards.contract import Span, SpanReward, shorten
from rlhf.rewards.explanation import explanation
from rlhf.rewards.loading import load_reward
from rlhf.rewards.scores import Scores, WeightedReward

Columns = Mapping[str, Sequence[Any]]


class RewardSum:
    """`total = sum over components of weight * clipped score`, each component called once per batch."""

    def __init__(self, rewards: Sequence[WeightedReward]) -> None:
        """Raises `RewardError` if there are no rewards or two have the same name."""
        if not rewards:
            raise RewardError("no rewards are given")
        names = [reward.name for reward in rewards]
        for name in names:
            if names.count(name) > 1:
                raise RewardError(f"two rewards are called {name!r}: set 'name' for one of them")
        self.rewards = tuple(rewards)

    @classmethod
    def from_specs(cls, specs: Sequence[RewardSpec]) -> "RewardSum":
        """The sum that a config describes; see `load_reward` for what it raises."""
        return cls(
            [WeightedReward(s.metric_name, load_reward(s), s.weight, timeout=s.timeout, clip=s.clip) for s in specs]
        )

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], columns: Columns) -> Scores:
        """Score a batch.

        Raises `RewardError` if a component raises, takes longer than its time-out, or returns anything but one
        finite number, `None` or valid `SpanReward` per sample; ValueError if the inputs differ in length.
        """
        for name, column in {"completions": completions, **columns}.items():
            if len(column) != len(prompts):
                raise ValueError(f"{len(prompts)} prompts but {len(column)} {name}")
        scores = Scores([0.0] * len(prompts), {reward.name: [] for reward in self.rewards}, [[] for _ in prompts])
        if not prompts:
            return scores
        for reward in self.rewards:
            batch = _Batch(reward, list(prompts), list(completions), dict(columns))
            items = batch.items()
            scores.components[reward.name] = [item.score if item else None for item in items]
            for i, item in enumerate(items):
                if item is not None:
                    scores.total[i] += reward.weight * reward.clipped(item.score)
                    scores.spans[i] += [Span(s.start, s.end, reward.weight * s.value) for s in item.spans]
        return scores

    def explain(self, prompt: str, completion: str, columns: Mapping[str, Any]) -> str:
        """One paragraph per component: score, weight and, where the reward can say it, the reason."""
        scores = self([prompt], [completion], {name: [value] for name, value in columns.items()})
        return explanation(self.rewards, scores, 0, prompt, completion, columns)


@dataclass(frozen=True)
class _Batch:
    """One component on one batch: calls it and checks what it returns."""

    reward: WeightedReward
    prompts: list[str]
    completions: list[str]
    columns: dict[str, Sequence[Any]]

    def items(self) -> list[SpanReward | None]:
        output = self._call()
        if not hasattr(output, "__len__") or isinstance(output, str | bytes | Mapping) or _is_scalar(output):
            raise self._error(f"returned a {type(output).__name__} instead of a list", 0)
        if len(output) != len(self.prompts):
            raise self._error(f"returned {len(output)} scores for {len(self.prompts)} samples", 0)
        return [self._checked(item, i) for i, item in enumerate(output)]

    def _call(self) -> Any:
        function = self.reward.function
        if isinstance(function, functools.partial):
            for name in function.keywords.keys() & {*self.columns, "prompts", "completions"}:
                raise self._error(f"argument {name!r} is also a column of the data", 0)
        try:
            return self._call_range(0, len(self.prompts))
        except TimeLimitError:
            raise self._out_of_time() from None
        except Exception as error:
            raise self._error(f"raised {with_kind(error)[:300]}", self._first_failing()) from error

    def _call_range(self, start: int, stop: int) -> Any:
        columns = {name: list(column[start:stop]) for name, column in self.columns.items()}
        arguments = {"prompts": self.prompts[start:stop], "completions": self.completions[start:stop], **columns}
        limit = self.reward.timeout
        return call(self.reward.function, arguments, None if limit is None else limit * (stop - start))

    def _out_of_time(self) -> RewardError:
        """The error for a batch that took too long: names the first sample that does so on its own, if one does."""
        limit, n = self.reward.timeout, len(self.prompts)
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
        start, stop = 0, len(self.prompts)
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
        length = len(self.completions[i])
        if not 0 <= span.start < span.end <= length:
            raise self._error(f"gave a span {span.start}:{span.end} outside its {length} characters", i)
        return Span(span.start, span.end, self._number(span.value, i))

    def _number(self, value: Any, i: int) -> float:
        """`value` as a float; numpy and torch scalars are numbers, bools, strings and arrays are not."""
        scalar = value.item() if _is_scalar(value) else value
        if isinstance(scalar, bool) or not isinstance(scalar, numbers.Real):
            raise self._error(f"returned {shorten(str(value), 40)}, a {type(value).__name__}, as a score", i)
        try:
            number = float(scalar)
        except OverflowError:  # an integer of more than 308 digits
            number = math.inf
        if not math.isfinite(number):
            raise self._error(f"returned the score {number}", i)
        return number

    def _error(self, problem: str, i: int) -> RewardError:
        where = f"prompt {shorten(self.prompts[i])}, completion {shorten(self.completions[i])}"
        return RewardError(f"reward {self.reward.name!r} {problem} (sample {i}: {where})")


def _is_scalar(value: Any) -> bool:
    # A 0-dimensional tensor or array, known by its shape so that neither torch nor numpy is needed here.
    return getattr(value, "ndim", None) == 0 and hasattr(value, "item")
