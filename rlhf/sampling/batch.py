"""The batch behind the decode loop: what was read is kept in a cache, and rows leave when they are finished.

Which cache is a model's own affair (`Way`); `rlhf.sampling.trial` finds out which of them tell the truth.
"""

import inspect
import itertools
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from rlhf.models.head import trunk_of
from rlhf.models.shape import text_config
from rlhf.sampling.turn_cache import States, TurnCache, padded_left

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Way = Literal["fast", "plain", "uncached"]
"""How to read one more token: with a cache of the final size that is filled in place; with transformers' own, which is
copied for every token; or without one, everything from the first token on again, which any causal model can do."""


class DecodingBatch:
    """Rows that a model reads together: their prompts first, then one token of each at a time.

    Prompts are padded on the left, with positions counted from the first real token. One that stands several times in a
    row is read once, and of one that goes on from the turn before no more than is new.

    Args:
        model: A causal language model in eval mode.
        prompts: B rows of token ids.
        n_steps: Tokens after the prompts, at most.
        pad_id: Any token.
        way: fast or plain.
        turns: What is known of the prompts from the turn before; for the fast way.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        prompts: list[list[int]],
        n_steps: int,
        pad_id: int,
        way: Way = "fast",
        turns: TurnCache | None = None,
    ) -> None:
        assert turns is None or way == "fast", "another cache may hold more than keys and values"
        self.trunk = trunk_of(model)
        takes = inspect.signature(type(self.trunk).forward).parameters
        self.takes_positions = "position_ids" in takes
        self.cache_argument = "cache_params" if "cache_params" in takes else "past_key_values"  # the former is Mamba's
        repeats = [(prompt, len(list(equal))) for prompt, equal in itertools.groupby(prompts)]
        self.counts = torch.tensor([count for _, count in repeats], device=model.device)
        prompt_ids, is_prompt = pad_left([torch.tensor(prompt) for prompt, _ in repeats], pad_id)
        self.prompt_ids, is_prompt = prompt_ids.to(model.device), is_prompt.to(model.device)
        self.n_seen = self.prompt_ids.shape[1]
        n_read, known = (self.n_seen, []) if turns is None else turns.known([prompt for prompt, _ in repeats])
        self.attention = torch.nn.functional.pad(is_prompt, (0, n_steps), value=True)  # [n, P + T]
        self.positions = is_prompt.long().cumsum(-1).sub(1).clamp(min=0)  # of the tokens that are read next
        self.prompt_ids, self.positions = self.prompt_ids[:, -n_read:], self.positions[:, -n_read:]
        self.cache = growing_cache(model, self.n_seen + n_steps) if way == "fast" else dynamic_cache(model)
        if n_read < self.n_seen:
            for layer, states in zip(self.cache.layers, zip(*known, strict=True), strict=True):
                layer.update(*(padded_left(list(rows)) for rows in zip(*states, strict=True)))

    def read_prompts(self) -> Tensor:
        """Last hidden state of each of the B rows, [B, H]."""
        hidden = self._read(self.prompt_ids)
        if len(self.counts) < self.counts.sum():
            prompt_of = torch.arange(len(self.counts), device=hidden.device).repeat_interleave(self.counts)
            self.keep(prompt_of)
            hidden = hidden[prompt_of]
        return hidden

    def read(self, tokens: Tensor) -> Tensor:
        """Last hidden state of each row after one more token: [n] -> [n, H]."""
        self.positions = self.positions[:, -1:] + 1
        self.n_seen += 1
        return self._read(tokens.unsqueeze(-1))

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only, given as a mask or as indices."""
        rows = rows.nonzero().squeeze(-1) if rows.dtype == torch.bool else rows
        self.cache.reorder_cache(rows)  # which layers with a recurrent state have too, unlike batch_select_indices
        self.attention, self.positions = self.attention[rows], self.positions[rows]

    def states(self, rows: Tensor) -> list[States]:
        """Keys and values of some rows, given as a mask: of their prompts, and of all that was read since."""
        starts, layers = self.attention.long().argmax(-1).tolist(), self.cache.layers
        return [
            [tuple(x[row, :, starts[row] :].clone() for x in (layer.keys, layer.values)) for layer in layers]
            for row in rows.nonzero().squeeze(-1).tolist()
        ]

    def _read(self, input_ids: Tensor) -> Tensor:
        options = {"position_ids": self.positions} if self.takes_positions else {}
        options |= {self.cache_argument: self.cache, "attention_mask": self.attention[:, : self.n_seen]}
        return self.trunk(input_ids=input_ids, use_cache=True, **options).last_hidden_state[:, -1]


class UncachedBatch:
    """The same for a model without a cache that can be relied on; rows are padded on the right, as in the update.

    Args:
        model: A causal language model in eval mode.
        prompts: B rows of token ids.
        pad_id: Any token.
    """

    def __init__(self, model: "PreTrainedModel", prompts: list[list[int]], pad_id: int) -> None:
        self.trunk = trunk_of(model)
        rows = [torch.tensor(prompt) for prompt in prompts]
        self.lengths = torch.tensor([len(row) for row in rows], device=model.device)
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad_id)
        self.ids = padded.to(model.device)

    def read_prompts(self) -> Tensor:
        """Last hidden state of each of the B rows, [B, H]."""
        hidden = self.trunk(input_ids=self.ids, use_cache=False).last_hidden_state
        return hidden[torch.arange(len(hidden), device=hidden.device), self.lengths - 1]

    def read(self, tokens: Tensor) -> Tensor:
        """Last hidden state of each row after one more token: [n] -> [n, H]."""
        self.ids = torch.nn.functional.pad(self.ids, (0, 1))
        self.ids.scatter_(1, self.lengths.unsqueeze(-1), tokens.unsqueeze(-1))
        self.lengths = self.lengths + 1
        return self.read_prompts()

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only, given as a mask or as indices."""
        self.ids, self.lengths = self.ids[rows], self.lengths[rows]


def open_batch(
    model: "PreTrainedModel",
    prompts: list[list[int]],
    n_steps: int,
    pad_id: int,
    way: Way,
    turns: TurnCache | None = None,
) -> DecodingBatch | UncachedBatch:
    """A batch that reads token by token in a certain way."""
    if way == "uncached":
        return UncachedBatch(model, prompts, pad_id)
    return DecodingBatch(model, prompts, n_steps, pad_id, way, turns)


def pad_left(rows: list[Tensor], pad_id: int) -> tuple[Tensor, Tensor]:
    """Rows of token ids, padded on the left: ids [B, P] and mask [B, P], True at real tokens."""
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad_id, padding_side="left")
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(ids.shape[1]) >= ids.shape[1] - lengths.unsqueeze(-1)
    return ids, mask


def growing_cache(model: "PreTrainedModel", capacity: int):  # type: ignore[no-untyped-def]
    """A key/value cache for `capacity` tokens whose memory is taken once and filled in place."""
    from rlhf.models.private_names import Cache, DynamicLayer

    class GrowingLayer(DynamicLayer):
        """Transformers' DynamicLayer concatenates, which copies the whole cache for every token."""

        def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs):  # type: ignore[no-untyped-def]
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
                # Keys and values apart: DeepSeek's differ in width.
                self.buffers = [x.new_empty(*x.shape[:2], capacity, x.shape[3]) for x in (key_states, value_states)]
                self.filled = 0
            new = self.filled + key_states.shape[2]
            for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
                buffer[:, :, self.filled : new] = states
            self.filled = new
            self.keys, self.values = (buffer[:, :, :new] for buffer in self.buffers)
            return self.keys, self.values

        def reorder_cache(self, beam_idx: Tensor) -> None:
            self.buffers = [buffer[beam_idx] for buffer in self.buffers]
            self.keys, self.values = (buffer[:, :, : self.filled] for buffer in self.buffers)

    return Cache(layers=[GrowingLayer() for _ in range(text_config(model).num_hidden_layers)])


def dynamic_cache(model: "PreTrainedModel"):  # type: ignore[no-untyped-def]
    """The cache of transformers, with what each layer of the model needs."""
    from transformers import DynamicCache

    return DynamicCache(config=text_config(model))
