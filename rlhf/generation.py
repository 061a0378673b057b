"""Sampling responses: a decode loop that drops finished rows and never copies its cache to grow it."""

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from rlhf.config import SamplingConfig
from rlhf.errors import UserError

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
) -> Sampled:
    """Sample one response to each prompt (token ids).

    Rows share one forward pass per token; prompts are padded on the left, with positions counted from the first real
    token. A prompt that stands several times in a row goes through the model once. A response ends with EOS, or where
    `is_stop`, given the responses so far [n, t], says so [n]. `generator` must be on the model's device.
    """
    device = model.device
    n_rows, n_steps = len(prompts), sampling.max_response_tokens
    repeats = [(prompt, len(list(equal))) for prompt, equal in itertools.groupby(prompts)]
    prompt_ids, prompt_mask = pad_left([torch.tensor(prompt) for prompt, _ in repeats], eos_token_id)
    prompt_ids, attention = prompt_ids.to(device), prompt_mask.to(device)
    n_prompt = prompt_ids.shape[1]
    attention = torch.nn.functional.pad(attention, (0, n_steps), value=True)  # [.., P + T]
    positions = attention[:, :n_prompt].long().cumsum(-1).sub(1).clamp(min=0)
    response_ids = torch.full((n_rows, n_steps), eos_token_id, device=device)
    response_mask = torch.zeros((n_rows, n_steps), dtype=torch.bool, device=device)
    ended = torch.zeros(n_rows, dtype=torch.bool, device=device)
    running = torch.arange(n_rows, device=device)  # original index of each row in the batch
    alive = torch.ones(n_rows, dtype=torch.bool, device=device)
    cache = growing_cache(model, n_prompt + n_steps)
    lm_head = model.get_output_embeddings()

    def read(input_ids: Tensor, n_seen: int) -> Tensor:
        """Last hidden state of each row, [n, H], with what comes before from the cache."""
        return model.base_model(
            input_ids=input_ids,
            attention_mask=attention[:, :n_seen],
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]

    hidden = read(prompt_ids, n_prompt)
    if len(repeats) < n_rows:
        counts = torch.tensor([count for _, count in repeats], device=device)
        prompt_of = torch.arange(len(repeats), device=device).repeat_interleave(counts)
        cache.batch_select_indices(prompt_of)
        hidden, attention, positions = hidden[prompt_of], attention[prompt_of], positions[prompt_of]
    for step in range(n_steps):
        tokens = choose(lm_head(hidden), sampling, generator)
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
            cache.batch_select_indices(alive)
            running, attention, tokens, positions = running[alive], attention[alive], tokens[alive], positions[alive]
            alive = alive[alive]
        positions = positions[:, -1:] + 1
        hidden = read(tokens.unsqueeze(-1), n_prompt + step + 1)
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
        return order.gather(-1, draw(ordered, generator)).squeeze(-1)
    return draw(probabilities, generator).squeeze(-1)


def draw(probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
    """One index per row, by its probability: [B, V] -> [B, 1]; raises UserError where these are not finite.

    The first index whose cumulative probability exceeds a uniform number, in float64: one random number per row, where
    torch.multinomial takes one per entry.
    """
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    if not total.isfinite().all():
        raise UserError(
            "the logits of the model are not finite, there is nothing to sample from; the same command continues from"
            " the last checkpoint; if this comes again, look at grad_norm in metrics.jsonl"
        )
    uniform = torch.rand(total.shape, dtype=total.dtype, device=total.device, generator=generator)
    return torch.searchsorted(cumulative, uniform * total, right=True)


def pad_left(rows: list[Tensor], pad_id: int) -> tuple[Tensor, Tensor]:
    """Rows of token ids, padded on the left: ids [B, P] and mask [B, P], True at real tokens."""
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad_id, padding_side="left")
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(ids.shape[1]) >= ids.shape[1] - lengths.unsqueeze(-1)
    return ids, mask


def growing_cache(model: "PreTrainedModel", capacity: int):  # type: ignore[no-untyped-def]
    """A key/value cache for `capacity` tokens whose memory is taken once and filled in place."""
    from transformers.cache_utils import Cache, DynamicLayer

    class GrowingLayer(DynamicLayer):
        """Transformers' DynamicLayer concatenates, which copies the whole cache for every token."""

        def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs):  # type: ignore[no-untyped-def]
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
                rows, heads, _, width = key_states.shape
                self.buffer = key_states.new_empty(2, rows, heads, capacity, width)
                self.filled = 0
            new = self.filled + key_states.shape[2]
            self.buffer[0, :, :, self.filled : new] = key_states
            self.buffer[1, :, :, self.filled : new] = value_states
            self.filled = new
            self.keys, self.values = self.buffer[:, :, :, :new]
            return self.keys, self.values

        def batch_select_indices(self, indices: Tensor) -> None:
            self.buffer = self.buffer[:, indices]
            self.keys, self.values = self.buffer[:, :, :, : self.filled]

    return Cache(layers=[GrowingLayer() for _ in range(model.config.num_hidden_layers)])
