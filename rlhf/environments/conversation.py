"""A conversation as token ids: what was sampled stays as it was, and every answer is added behind it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from rlhf.data.examples import TokenizedExample
from rlhf.data.messages import Message
from rlhf.environments.contract import Environment, Step
from rlhf.sampling.episode import Ending, Episode
from rlhf.sampling.responses import extents

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from rlhf.sampling.decode import Sampled


class Turn(NamedTuple):
    """What the model said: its tokens through the one that ended it, or the last one before it was cut off."""

    ids: list[int]
    logprobs: list[float] | None
    ended: bool
    text: str


class Conversation:
    """One episode on its way.

    Attributes:
        prompt: The first messages, as tokens and as an example.
        environment: Who answers.
        ids: Tokens behind the first messages; `is_own` says which of them the model chose.
        logprobs: Of each token as its sampler computed it, 0 where it did not choose or did not say.
        paid: What the environment paid at each token.
        ending: Why it ended; None as long as it goes on.
    """

    def __init__(self, prompt: TokenizedExample, environment: Environment) -> None:
        self.prompt, self.environment = prompt, environment
        self.device = torch.device("cpu")
        self.ids: list[int] = []
        self.is_own: list[bool] = []
        self.logprobs: list[float] = []
        self.paid: list[float] = []
        self.ending: Ending | None = None
        self.messages: list[Message] = []
        self.rewards: list[float] = []
        self.metrics: dict[str, float] = {}

    @property
    def all_ids(self) -> list[int]:
        """All tokens so far."""
        return self.prompt.prompt_ids + self.ids

    def say(self, turn: Turn) -> None:
        """Add a turn of the model."""
        self._add(turn.ids, is_own=True, logprobs=turn.logprobs)
        self.messages.append({"role": "assistant", "content": turn.text})

    def take(self, step: Step, turn: Turn, is_last: bool) -> None:
        """Add what the environment made of the turn, but not what it answered yet."""
        self.paid[-1] += step.reward
        self.rewards.append(step.reward)
        self.metrics |= step.metrics
        if not turn.ended:
            self.ending = "cut"
        elif step.done:
            self.ending = "done"
        elif is_last:
            self.ending = "max_turns"

    def hear(self, turns: Sequence[Message], ids: list[int], limit: int) -> None:
        """Add the environment's answer, which begins by closing the model's turn; the end where it leaves no room."""
        ids = ids[1:] if ids[0] == self.ids[-1] else ids  # the model has closed its turn itself
        if len(self.all_ids) + len(ids) >= limit:
            self.ending = "full"
            return
        self._add(ids, is_own=False)
        self.messages += turns

    def episode(self) -> Episode:
        """What was said and paid, once it is over."""
        assert self.ending is not None
        return Episode(tuple(self.messages), tuple(self.rewards), self.ending, self.metrics)

    def _add(self, ids: list[int], is_own: bool, logprobs: list[float] | None = None) -> None:
        self.ids += ids
        self.is_own += [is_own] * len(ids)
        self.logprobs += logprobs or [0.0] * len(ids)
        self.paid += [0.0] * len(ids)


def turns_of(sampled: "Sampled", tokenizer: "PreTrainedTokenizerFast") -> list[Turn]:
    """The rows of what was sampled."""
    ends = extents(sampled.response_mask).tolist()
    ids = [row[:end] for row, end in zip(sampled.response_ids.tolist(), ends, strict=True)]
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    said = [None] * len(ids) if sampled.logprobs is None else sampled.logprobs.tolist()
    logprobs = [row and row[: len(own)] for row, own in zip(said, ids, strict=True)]
    return [Turn(*row) for row in zip(ids, logprobs, sampled.ended.tolist(), texts, strict=True)]


def padded(rows: list[list[int]] | list[list[bool]] | list[list[float]], filler: float, device: torch.device) -> Tensor:
    """Rows of numbers as one tensor, padded on the right."""
    tensors = [torch.tensor(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=filler).to(device)
