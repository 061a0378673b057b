"""Sampling responses, one token of each at a time."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from rlhf.config import SamplingConfig
from rlhf.errors import UserError
from rlhf.models.head import head_of
from rlhf.sampling.batch import Way, open_batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

COMPACT_BELOW = 0.8  # drop finished rows from the batch when fewer than this share is still running


class Sampled(NamedTuple):
    """Responses to B prompts, T tokens at most.

    Attributes:
        response_ids: [B, T], EOS after the end.
        response_mask: [B, T] True through the last token, EOS included.
        ended: [B] False for a response that was cut off at the limit.
    """

    response_ids: Tensor
    response_mask: Tensor
    ended: Tensor


@torch.inference_mode()
def sample(
    model: "PreTrainedModel",
    prompts: list[list[int]],
    sampling: SamplingConfig,
    eos_token_id: int,
    generator: torch.Generator | None = None,
    is_stop: Callable[[Tensor], Tensor] | None = None,
    way: Way = "fast",
) -> Sampled:
    """Sample one response to each prompt (token ids).

    Rows share one forward pass per token; finished ones are dropped once they are more than a fifth of the batch. A
    response ends with EOS, or where `is_stop`, given the responses so far [n, t], says so [n]. `generator` must be on
    the model's device. `way` is how the model is read: `way_of` finds one that is exact.
    """
    n_rows, n_steps = len(prompts), sampling.max_new_tokens
    response_ids = torch.full((n_rows, n_steps), eos_token_id, device=model.device)
    response_mask = torch.zeros((n_rows, n_steps), dtype=torch.bool, device=model.device)
    ended = torch.zeros(n_rows, dtype=torch.bool, device=model.device)
    running = torch.arange(n_rows, device=model.device)  # where each row of the batch stands in the results
    alive = torch.ones(n_rows, dtype=torch.bool, device=model.device)
    batch = open_batch(model, prompts, n_steps, eos_token_id, way)
    head = head_of(model)
    hidden = batch.read_prompts()
    for step in range(n_steps):
        tokens = choose(head(hidden), sampling, generator)
        response_ids[running[alive], step] = tokens[alive]
        response_mask[running[alive], step] = True
        done = tokens == eos_token_id
        if is_stop is not None:
            done |= is_stop(response_ids[running, : step + 1])
        ended[running[done & alive]] = True
        alive &= ~done
        n_alive = int(alive.sum())
        if n_alive == 0 or step == n_steps - 1:
            break
        if n_alive < COMPACT_BELOW * len(alive):
            batch.keep(alive)
            running, tokens, alive = running[alive], tokens[alive], alive[alive]
        hidden = batch.read(tokens)
    longest = int(response_mask.sum(-1).max())
    return Sampled(response_ids[:, :longest].clone(), response_mask[:, :longest].clone(), ended)


def stop_strings(sampling: SamplingConfig, tokenizer: "PreTrainedTokenizerFast") -> Callable[[Tensor], Tensor] | None:
    """Tells which rows of token ids have a stop string in what the last token completes; None where there is none.

    By decoding the end of every row: transformers' StopStringCriteria misses one that lies inside a single token.
    """
    if not sampling.stop:
        return None
    longest = max(len(text.encode()) for text in sampling.stop)  # in bytes: no token is shorter than one

    def is_stop(response_ids: Tensor) -> Tensor:
        texts = tokenizer.batch_decode(response_ids[:, -longest:])
        hits = [any(stop in text for stop in sampling.stop) for text in texts]
        return torch.tensor(hits, device=response_ids.device)

    return is_stop


def choose(logits: Tensor, sampling: SamplingConfig, generator: torch.Generator | None) -> Tensor:
    """Draw one token per row from softmax(logits / temperature), cut to the top_p nucleus: [B, V] -> [B]."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probabilities = (logits.float() / sampling.temperature).softmax(-1)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        ordered[ordered.cumsum(-1) - ordered >= sampling.top_p] = 0.0
        return order.gather(-1, multinomial(ordered, generator)).squeeze(-1)
    return multinomial(probabilities, generator).squeeze(-1)


def multinomial(probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
    """One index per row, by its probability: [B, V] -> [B, 1]; raises UserError where these are not finite."""
    if not probabilities.isfinite().all():
        raise UserError(
            "the logits of the model are not finite, there is nothing to sample from; the same command continues from"
            " the last checkpoint; if this comes again, look at grad_norm in metrics.jsonl"
        )
    return torch.multinomial(probabilities, 1, generator=generator)
