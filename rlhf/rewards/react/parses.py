"""Rewards for text that parses as TSX: all or nothing, or the share before the first error."""

import math
from typing import Any

from rlhf.rewards.code_text import code_range
from rlhf.rewards.contract import Item, Span, SpanReward
from rlhf.rewards.react.syntax import Syntax
from rlhf.rewards.turns import TextReward


class ErrorPenalty:
    """Attaches `value` (at most 0) to the character at which the parser fails, for precise credit."""

    def __init__(self, value: float) -> None:
        if not -math.inf < value <= 0:
            raise ValueError(f"error_penalty {value} must be finite and at most 0")
        self.value = value

    def attach(self, score: float, completion: str, code_start: int, syntax: Syntax) -> Item:
        """`score`, with a span if there is a penalty and an error to put it on."""
        if not self.value or not completion or syntax.error is None:
            return score
        # An unfinished text fails after its last character: there is only that one left to blame.
        at = min(code_start + syntax.error, len(completion) - 1)
        return SpanReward(score, (Span(at, at + 1, self.value),))


class ReactParses(TextReward):
    """1.0 if the code in the completion parses as TSX without error, else 0.0.

    With `error_penalty` (at most 0) a completion that does not parse also carries that amount on the
    character at which the parser fails. Fooled by any short program: `x` parses.
    """

    def __init__(self, *, error_penalty: float = 0.0) -> None:
        self.penalty = ErrorPenalty(error_penalty)

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[Item]:
        return [self._score(completion) for completion in completions]

    def explain(self, prompt: str, completion: str, **columns: Any) -> str:
        return describe_error(completion, *_analyze_code(completion))

    def _score(self, completion: str) -> Item:
        start, syntax = _analyze_code(completion)
        return self.penalty.attach(float(syntax.parses), completion, start, syntax)


class ReactErrorFree(TextReward):
    """Share of the code before its first TSX error, in [0, 1]; 1.0 if it parses or merely ends too early."""

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        return [_analyze_code(completion)[1].error_free_share for completion in completions]

    def explain(self, prompt: str, completion: str, **columns: Any) -> str:
        start, syntax = _analyze_code(completion)
        share = f"{syntax.error_free_share:.0%} of {syntax.length} characters before the first error"
        return f"{describe_error(completion, start, syntax)}; {share}"


def describe_error(completion: str, code_start: int, syntax: Syntax) -> str:
    """Whether the code parses and, if not, at which line of the completion it stops."""
    if syntax.error is None:
        return "parses as TSX"
    at = code_start + syntax.error
    line = completion.count("\n", 0, at) + 1
    if syntax.error >= syntax.length:
        return f"does not parse: ends too early, in line {line}"
    return f"does not parse: unexpected {completion[at : at + 20]!r} in line {line}"


def _analyze_code(completion: str) -> tuple[int, Syntax]:
    start, end = code_range(completion)
    return start, Syntax(completion[start:end])
