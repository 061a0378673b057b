"""Calling the environments of a batch: within their time, with every answer checked, and the episode at fault named."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

from rlhf.config import EnvironmentSpec
from rlhf.data.messages import Message, read_turns
from rlhf.data.parsing import Example
from rlhf.data.rows import require_plain
from rlhf.environments.contract import Environment, Messages, Step
from rlhf.environments.loading import load_environment
from rlhf.errors import EpisodeError, UserError, with_kind
from rlhf.rewards.arguments import arguments_for
from rlhf.rewards.batch import own
from rlhf.rewards.calling import TimeLimitError, call_each
from rlhf.rewards.contract import shorten
from rlhf.rewards.numbers import finite

OF_EPISODES = frozenset({"turns", "done"})
"""Metrics of every episode."""


class Environments:
    """Opens and steps the episodes of a batch.

    Coroutines of a batch run at the same time, plain methods one after the other. Raises EpisodeError where an
    environment raises, takes too long or answers anything but what `rlhf.environments.contract` says.
    """

    def __init__(self, spec: EnvironmentSpec) -> None:
        self.spec, self.make = spec, load_environment(spec)

    def open(self, examples: Sequence[Example]) -> list[tuple[Environment, list[Message]]]:
        """An environment for each row of data, and its first messages."""
        opened, calls = [], []
        for number, example in enumerate(examples):
            where = self._where(number, 0, example.prompt)
            opened.append(self._made(where))
            given = {"prompt": list(example.turns) or example.prompt} if example.given else {}
            offered = {name: own(value) for name, value in (given | example.columns).items()}
            calls.append((opened[-1].reset, self._arguments(opened[-1], offered, where)))
        if len(set(map(id, opened))) < len(opened):
            self._fail("gave one object for two episodes; it must make a new one each time", where)
        outcomes = call_each(calls, self.spec.timeout)
        messages = [
            self._messages(self._returned(outcome, where), "first messages", where)
            for number, outcome in enumerate(outcomes)
            for where in [self._where(number, 0, examples[number].prompt)]
        ]
        return list(zip(opened, messages, strict=True))

    def step(self, turns: Sequence[tuple[Environment, str]], numbers: Sequence[int], turn: int) -> list[Step]:
        """What the environments make of a turn of the model; `numbers` are those of the episodes, for messages."""
        outcomes = call_each([(partial(environment.step, text), {}) for environment, text in turns], self.spec.timeout)
        return [
            self._checked(self._returned(outcome, where), where)
            for number, (_, text), outcome in zip(numbers, turns, outcomes, strict=True)
            for where in [self._where(number, turn, text)]
        ]

    def _made(self, where: str) -> Environment:
        try:
            return self.make()
        except Exception as error:
            self._fail(f"raised {with_kind(error)[:300]} when it was made", where, error)

    def _arguments(self, environment: Environment, offered: dict[str, Any], where: str) -> dict[str, Any]:
        try:
            return arguments_for(environment.reset, offered)
        except ValueError as error:
            self._fail(f"{error}", where, error)

    def _returned(self, outcome: Any, where: str) -> Any:
        if isinstance(outcome, TimeLimitError):
            self._fail(f"took longer than {self.spec.timeout:g} s", where, outcome)
        if isinstance(outcome, Exception):
            self._fail(f"raised {with_kind(outcome)[:300]}", where, outcome)
        return outcome

    def _checked(self, step: Any, where: str) -> Step:
        if not isinstance(step, Step):
            self._fail(f"returned a {type(step).__name__} instead of a rlhf.environments.Step", where)
        if not isinstance(step.done, bool):
            self._fail(f"returned done {step.done!r}; it must be True or False", where)
        if not isinstance(step.metrics, Mapping):
            self._fail(f"returned metrics {step.metrics!r:.80}; they must be numbers by name", where)
        reward = self._number(step.reward, "the reward", where)
        taken = OF_EPISODES & step.metrics.keys()
        if taken:
            self._fail(f"returned a metric {min(taken)!r}, which every episode has; give it another name", where)
        metrics = {str(name): self._number(x, f"metric {name!r}", where) for name, x in step.metrics.items()}
        is_silent = step.done and not step.observation
        observation = [] if is_silent else self._messages(step.observation, "observations", where)
        return replace(step, reward=reward, metrics=metrics, observation=observation)

    def _messages(self, given: Messages, what: str, where: str) -> list[Message]:
        if isinstance(given, str):
            given = [{"role": "user", "content": given}]
        try:
            turns = read_turns(given, what)
            require_plain(turns, what)
        except UserError as error:
            self._fail(f"gave no messages: {error}", where, error)
        if turns[-1]["role"] == "assistant" or not turns[-1]["content"]:
            self._fail(f"gave {what} that are empty or end with the assistant; it is the model's turn then", where)
        return turns

    def _number(self, value: Any, what: str, where: str) -> float:
        try:
            return finite(value)
        except ValueError as error:
            self._fail(f"returned {what} as {value!r}; it must be a finite number", where, error)

    def _where(self, episode: int, turn: int, text: str) -> str:
        said = f"turn {turn}: the model said" if turn else "before the first turn: prompt"
        return f"(episode {episode}, {said} {shorten(text)})"

    def _fail(self, problem: str, where: str, cause: BaseException | None = None) -> NoReturn:
        raise EpisodeError(f"environment {self.spec.name!r} {problem} {where}") from cause
