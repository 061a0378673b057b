"""NaN, infinities and spikes in the numbers of a run, and rewards that misbehave."""

import importlib
import math
import time
from collections.abc import Callable
from typing import Any

import torch

from faults.inject import INJECTIONS, wrap

REWARD = "faults.rewards:count_e"


def on_call(nth: int, change: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Pass the result of the nth call through `change(result, *arguments)`."""
    calls = []

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            calls.append(function)
            return change(result, *args) if len(calls) == nth else result

        return wrapped

    return around


def poison_loss(at: str, nth: int, value: float) -> None:
    """The loss of one micro-batch times `value`; a function that returns (loss, statistics) has both changed."""

    def change(result: Any, *_: Any) -> Any:
        if not isinstance(result, tuple):
            return result * value
        loss, stats = result
        return loss * value, {name: x * value for name, x in stats.items()} if "policy/loss" in stats else stats

    wrap(at, on_call(nth, change))


def poison_gradient(at: str, nth: int, value: float) -> None:
    """One number of a gradient, before it is summed over the processes, is `value`, or `value` times itself."""
    calls = []

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(self: Any, parameters: Any, *rest: Any) -> Any:
            calls.append(function)
            parameters = list(parameters)
            if len(calls) == nth:
                gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
                for gradient in gradients if math.isfinite(value) else gradients[:1]:
                    gradient.mul_(value) if math.isfinite(value) else gradient.view(-1)[:1].fill_(value)
            return function(self, parameters, *rest)

        return wrapped

    wrap(at, around)


def poison_logits(at: str, nth: int, value: float) -> None:
    """One logit of every row is `value`, in the nth call of a function whose first argument are the logits."""
    calls = []

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(logits: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(function)
            if len(calls) == nth:
                logits = logits.clone()
                logits[..., 0] = value
            return function(logits, *args, **kwargs)

        return wrapped

    wrap(at, around)


def poison_reward(nth: int, misbehavior: str) -> None:
    """What the reward answers to its nth batch, and to all later ones."""
    calls = []

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(prompts: list[str], completions: list[str], **columns: Any) -> Any:
            calls.append(function)
            scores = function(prompts, completions, **columns)
            return MISBEHAVIORS[misbehavior](scores) if len(calls) >= nth else scores

        return wrapped

    wrap(REWARD, around)


def replace_reward(by: str) -> None:
    """An object of another class of faults.rewards, which gives the same scores, in the place of the reward."""
    wrap(REWARD, lambda function: getattr(importlib.import_module("faults.rewards"), by)())


def _raise(scores: list[float]) -> list[float]:
    raise ConnectionError("the judge has gone away")


def _hang(scores: list[float]) -> list[float]:
    time.sleep(3600)
    return scores


def _compute(scores: list[float]) -> list[float]:
    x = torch.ones(100, 100)
    while True:
        x = torch.tanh(x @ x)


MISBEHAVIORS: dict[str, Callable[[list[float]], Any]] = {
    "raises": _raise,
    "hangs": _hang,
    "computes forever": _compute,
    "too few": lambda scores: scores[:-1],
    "None for the batch": lambda scores: None,
    "None for a sample": lambda scores: [None, *scores[1:]],
    "strings": lambda scores: [str(score) for score in scores],
    "nan": lambda scores: [*scores[:-1], math.nan],
    "inf": lambda scores: [*scores[:-1], math.inf],
}
for injection in (poison_loss, poison_gradient, poison_logits, poison_reward, replace_reward):
    INJECTIONS[injection.__name__] = injection
