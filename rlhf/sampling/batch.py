"""The batch behind the decode loop: a cache that is filled in place, and rows that leave when they are finished."""

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class DecodingBatch:
    """Rows that a model reads together: their prompts first, then one token of each at a time.

    Prompts are padded on the left, with positions counted from the first real token. One that stands several times in a
    row is read once.

    Args:
        model: A causal language model in eval mode.
        prompts: B rows of token ids.
        n_steps: Tokens after the prompts, at most.
        pad_id: Any token.
        in_place: Fill a cache of the final size; False uses transformers' own, which is copied for every token.
    """

    def __init__(
        self, model: "PreTrainedModel", prompts: list[list[int]], n_steps: int, pad_id: int, in_place: bool = True
    ) -> None:
        self.model = model
        repeats = [(prompt, len(list(equal))) for prompt, equal in itertools.groupby(prompts)]
        self.counts = torch.tensor([count for _, count in repeats], device=model.device)
        prompt_ids, is_prompt = pad_left([torch.tensor(prompt) for prompt, _ in repeats], pad_id)
        self.prompt_ids, is_prompt = prompt_ids.to(model.device), is_prompt.to(model.device)
        self.n_seen = self.prompt_ids.shape[1]
        self.attention = torch.nn.functional.pad(is_prompt, (0, n_steps), value=True)  # [n, P + T]
        self.positions = is_prompt.long().cumsum(-1).sub(1).clamp(min=0)  # of the tokens that are read next
        self.cache = growing_cache(model, self.n_seen + n_steps) if in_place else dynamic_cache()

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
        self.cache.batch_select_indices(rows)
        self.attention, self.positions = self.attention[rows], self.positions[rows]

    def _read(self, input_ids: Tensor) -> Tensor:
        return self.model.base_model(
            input_ids=input_ids,
            attention_mask=self.attention[:, : self.n_seen],
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state[:, -1]


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


def dynamic_cache():  # type: ignore[no-untyped-def]
    """The key/value cache of transformers."""
    from transformers import DynamicCache

    return DynamicCache()
