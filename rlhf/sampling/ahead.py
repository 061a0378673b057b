"""One batch ahead: the next responses are sampled elsewhere while the policy learns from these."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from rlhf.data.examples import TokenizedExample
from rlhf.sampling.responses import Responses
from rlhf.sampling.stored import restored, stored


class Ahead:
    """The batch that is being sampled.

    Args:
        sample: Samples responses to prompts; called in a thread of its own.

    Attributes:
        staleness: Updates of the policy between the sampling of the batch that was taken last, and that.
    """

    def __init__(self, sample: Callable[[list[TokenizedExample]], Responses]) -> None:
        self.sample = sample
        self.pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sampling ahead")
        self.pending: Future[Responses] | None = None
        self.requested_at = self.staleness = 0

    def request(self, prompts: list[TokenizedExample], updates_done: int) -> None:
        """Have a batch sampled."""
        self.pending, self.requested_at = self.pool.submit(self.sample, prompts), updates_done

    def take(self, updates_done: int) -> Responses:
        """The batch that was requested, once it is there; raises what its sampling raised."""
        assert self.pending is not None
        responses, self.pending = self.pending.result(), None
        self.staleness = updates_done - self.requested_at
        return responses

    def state_dict(self) -> dict[str, Any] | None:
        """The batch, once it is there; None where none was requested."""
        if self.pending is None:
            return None
        return {"requested_at": self.requested_at, "responses": stored(self.pending.result())}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Take back what `state_dict` gave."""
        self.pending, self.requested_at = Future(), state["requested_at"]
        self.pending.set_result(restored(state["responses"], device))
