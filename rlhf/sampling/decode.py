"""Sampling responses, one token of each at a time."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from rlhf.config import SamplingConfig
from rlhf.errors import UserError
from rlhf.models.head import head_of
from rlhf.sampling.batch import DecodingBatch, Way, open_batch
from rlhf.sampling.stopping import as_ids
from rlhf.sampling.turn_cache import TurnCache

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

COMPACT_BELOW = 0.8  # drop finished rows from the batch when fewer than this share is still running


class Sampled(NamedTuple):
    """Responses to B prompts, T tokens at most.

    Attributes:
        response_ids: [B, T], EOS after the end.
        response_mask: [B, T] True through the last token, EOS included.
        ended: [B] False for a response that was cut off at the limit.
        logprobs: [B, T] of each token under softmax(logits / temperature) as the sampler computed it, 0 after the end;
            None where the sampler did not say.
    """

    response_ids: Tensor
    response_mask: Tensor
    ended: Tensor
    logprobs: Tensor | None = None


@torch.inference_mode()
def sample(
    model: "PreTrainedModel",
    prompts: list[list[int]],
    sampling: SamplingConfig,
    eos_token_id: int | Sequence[int],
    generator: torch.Generator | None = None,
    is_stop: Callable[[Tensor], Tensor] | None = None,
    way: Way = "fast",
    limits: Sequence[int] | None = None,
    turns: TurnCache | None = None,
) -> Sampled:
    """Sample one response to each prompt (token ids).

    Rows share one forward pass per token; finished ones are dropped once they are more than a fifth of the batch. A
    response ends with one of the tokens of `eos_token_id`, of which the first fills what is behind it, or where
    `is_stop`, given the responses so far [n, t], says so [n]. `generator` must be on the model's device.
    `way` is how the model is read: `way_of` finds one that is exact. `limits` are tokens for each row, where they are
    not all max_new_tokens. `turns`, for the fast way alone, knows rows that go on from the turn before and learns these
    for the next one.
    """
    limits = limits or [sampling.max_new_tokens] * len(prompts)
    n_rows, n_steps, ends = len(prompts), max(limits), torch.tensor(limits, device=model.device)
    stop_ids = torch.tensor(as_ids(eos_token_id), device=model.device)
    eos = int(stop_ids[0])
    response_ids = torch.full((n_rows, n_steps), eos, device=model.device)
    logprobs = torch.zeros((n_rows, n_steps), device=model.device)
    response_mask = torch.zeros((n_rows, n_steps), dtype=torch.bool, device=model.device)
    ended = torch.zeros(n_rows, dtype=torch.bool, device=model.device)
    running = torch.arange(n_rows, device=model.device)  # where each row of the batch stands in the results
    alive = torch.ones(n_rows, dtype=torch.bool, device=model.device)
    batch = open_batch(model, prompts, n_steps, eos, way, turns)
    head = head_of(model)
    hidden = batch.read_prompts()
    for step in range(n_steps):
        tokens, chosen = choose(head(hidden), sampling, generator)
        logprobs[running[alive], step] = chosen[alive]
        response_ids[running[alive], step] = tokens[alive]
        response_mask[running[alive], step] = True
        done = torch.isin(tokens, stop_ids)
        if is_stop is not None:
            done |= is_stop(response_ids[running, : step + 1])
        ended[running[done & alive]] = True
        alive &= ~done & (step + 1 < ends[running])
        n_alive = int(alive.sum())
        drops = n_alive < COMPACT_BELOW * len(alive)
        if drops and turns is not None:
            assert isinstance(batch, DecodingBatch)
            turns.put(running[~alive].tolist(), batch.states(~alive))
        if n_alive == 0:
            break
        if drops:
            batch.keep(alive)
            running, tokens, alive = running[alive], tokens[alive], alive[alive]
        hidden = batch.read(tokens)
    if turns is not None:
        said = [ids[own].tolist() for ids, own in zip(response_ids, response_mask, strict=True)]
        turns.close([[*prompt, *ids[:-1]] for prompt, ids in zip(prompts, said, strict=True)])  # none reads its last
    longest = int(response_mask.sum(-1).max())
    response_ids, response_mask, logprobs = (x[:, :longest].clone() for x in (response_ids, response_mask, logprobs))
    return Sampled(response_ids, response_mask, ended, logprobs)


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


def choose(logits: Tensor, sampling: SamplingConfig, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Draw one token per row from softmax(logits / temperature), cut to the top_p nucleus: [B, V] -> [B].

    Also its log-probability [B] before the cut; at temperature 0, which takes the largest logit, that at 1.
    """
    probabilities = (logits.float() / (sampling.temperature or 1.0)).softmax(-1)
    if sampling.temperature == 0:
        require_finite(probabilities)
        tokens = logits.argmax(-1, keepdim=True)
    elif sampling.top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        ordered[ordered.cumsum(-1) - ordered >= sampling.top_p] = 0.0
        tokens = order.gather(-1, multinomial(ordered, generator))
    else:
        tokens = multinomial(probabilities, generator)
    return tokens.squeeze(-1), probabilities.gather(-1, tokens).squeeze(-1).log()


def multinomial(probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
    """One index per row, by its probability: [B, V] -> [B, 1]; raises UserError where these are not finite."""
    require_finite(probabilities)
    return torch.multinomial(probabilities, 1, generator=generator)


def require_finite(probabilities: Tensor) -> None:
    """Raise UserError for probabilities of a model whose logits are not finite."""
    if not probabilities.isfinite().all():
        raise UserError(
            "the logits of the model are not finite, there is nothing to sample from; the same command continues from"
            " the last checkpoint; if this comes again, look at grad_norm in metrics.jsonl"
        )
