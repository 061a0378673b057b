"""Where the next prompts come from: shuffled passes over a data set, or an iterator."""

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import torch

from rlhf.data.examples import TokenizedExample
from rlhf.errors import UserError

MAX_LEFT_OUT = 1000
"""Rows of an iterator in a row without a prompt among them, before something must be wrong."""


class PromptSource(Protocol):
    """An endless stream of prompts that can be continued where a checkpoint left it."""

    def __next__(self) -> TokenizedExample: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class ShuffledPasses:
    """Every prompt once in a random order, then again in another one, forever.

    Args:
        prompts: The data set.
        generator: Draws the orders; its own state is the caller's to save.
    """

    def __init__(self, prompts: list[TokenizedExample], generator: torch.Generator) -> None:
        self.prompts, self.generator = prompts, generator
        self.order: list[int] = []
        self.position = 0

    def __next__(self) -> TokenizedExample:
        if self.position == len(self.order):
            self.order = torch.randperm(len(self.prompts), generator=self.generator).tolist()
            self.position = 0
        self.position += 1
        return self.prompts[self.order[self.position - 1]]

    def state_dict(self) -> dict[str, Any]:
        return {"order": self.order, "position": self.position, "sha256": self.fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue a pass; raises UserError if the data set is another one by now."""
        if state["order"] and len(state["order"]) != len(self.prompts):
            raise UserError(
                f"the checkpoint was made with {len(state['order'])} prompts, the data now holds {len(self.prompts)}; "
                "restore the data, or choose another output_dir"
            )
        if state.get("sha256", self.fingerprint) != self.fingerprint:  # none of an earlier release
            raise UserError(
                f"the checkpoint was made with other data than these {len(self.prompts)} prompts and their columns; "
                "restore the data, or choose another output_dir"
            )
        self.order, self.position = state["order"], state["position"]

    @functools.cached_property
    def fingerprint(self) -> str:
        """What tells the prompts and their columns from others."""
        digest = hashlib.sha256()
        for prompt in self.prompts:
            digest.update(repr((prompt.prompt_ids, prompt.example.columns)).encode())
        return digest.hexdigest()


class PromptStream:
    """Prompts made on the fly.

    Args:
        rows: Yields rows as a data file would hold them, for example {"prompt": "..."}; it must give the same rows on
            every process, and after a restart: a resumed run skips those that it has used.
        tokenize: Makes a prompt of a row, or None of one that is to be left out.
    """

    def __init__(self, rows: Iterable[Any], tokenize: Callable[[Any, str], TokenizedExample | None]) -> None:
        self.rows: Iterator[Any] = iter(rows)
        self.tokenize = tokenize
        self.drawn = 0

    def __next__(self) -> TokenizedExample:
        for _ in range(MAX_LEFT_OUT):
            row = self._next_row()
            prompt = self.tokenize(row, f"prompt {self.drawn}")
            if prompt is not None:
                return prompt
        raise UserError(f"the last {MAX_LEFT_OUT} rows of the prompt iterator were all left out; make them shorter")

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        while self.drawn < state["drawn"]:
            self._next_row()

    def _next_row(self) -> Any:
        try:
            row = next(self.rows)
        except StopIteration:
            raise UserError(f"the prompt iterator ended after {self.drawn} prompts; it has to go on forever") from None
        self.drawn += 1
        return row


def in_batches(prompts: list[TokenizedExample], size: int | None) -> list[list[TokenizedExample]]:
    """The prompts, at most `size` at a time."""
    size = size or len(prompts)
    return [prompts[start : start + size] for start in range(0, len(prompts), size)]
