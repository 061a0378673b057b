"""One batch ahead: the next responses are sampled elsewhere while the policy learns from these."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from rlhf.data.examples import TokenizedExample
from rlhf.sampling.responses import Responses

TENSORS = ("sequence_ids", "prompt_lengths", "response_mask", "has_eos", "sampler_logprobs")


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
        self.drawn_from: dict[str, Any] = {}
        self.requested_at = self.staleness = 0

    def request(self, prompts: list[TokenizedExample], drawn_from: dict[str, Any], updates_done: int) -> None:
        """Have a batch sampled; `drawn_from` are the states from which its prompts can be drawn again."""
        self.pending, self.drawn_from = self.pool.submit(self.sample, prompts), drawn_from
        self.requested_at = updates_done

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
        responses = self.pending.result()
        tensors = {name: getattr(responses, name).cpu() for name in TENSORS}
        about = {"drawn_from": self.drawn_from, "requested_at": self.requested_at, "texts": responses.texts}
        return about | tensors

    def load_state_dict(self, state: dict[str, Any], prompts: list[TokenizedExample], device: torch.device) -> None:
        """Take back what `state_dict` gave; `prompts` are those of the batch, drawn again."""
        tensors = {name: state[name].to(device) for name in TENSORS}
        examples = [prompt.example for prompt in prompts]
        self.pending, self.drawn_from, self.requested_at = Future(), state["drawn_from"], state["requested_at"]
        self.pending.set_result(Responses(**tensors, texts=state["texts"], examples=examples))
