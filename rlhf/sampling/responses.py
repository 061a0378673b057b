"""B sampled responses: what sampling hands on, and every later stage reads."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from rlhf.config import SamplingConfig
from rlhf.data.examples import TokenizedExample
from rlhf.data.parsing import Example
from rlhf.maths.advantages import last_token_index
from rlhf.models.tokenizer import require_known_tokens
from rlhf.parallel.ranks import Ranks
from rlhf.policy.merged import decoding
from rlhf.policy.policy import Policy
from rlhf.sampling.decode import Sampled, sample, stop_strings
from rlhf.sampling.episode import Episode
from rlhf.sampling.folder_settings import say_what_is_not_followed
from rlhf.sampling.memory import choose_copies
from rlhf.sampling.stopping import stop_token_ids
from rlhf.sampling.trial import continues, way_of
from rlhf.sampling.turn_cache import TurnCache

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ONE_PROCESS = Ranks()


@dataclass(frozen=True, kw_only=True)
class Responses:
    """B sampled responses.

    Attributes:
        sequence_ids: [B, L] prompt and response without a gap; filler after the response.
        prompt_lengths: [B].
        response_mask: [B, T] True at the tokens that the policy chose, through EOS: the only loss mask there is. What
            another party wrote in between, such as a tool, is a gap in it.
        has_eos: [B] False for a response that was cut off; one that a stop string ended counts as complete.
        texts: B responses, special tokens removed.
        examples: The B rows that the prompts come from.
        sampler_logprobs: [B, T] of each token as the sampler computed it; None where it did not say.
        turn_rewards: [B, T] what an environment paid, at the last token of each turn; None without an environment.
        episodes: B episodes as the environment saw them; None without one.
    """

    sequence_ids: Tensor
    prompt_lengths: Tensor
    response_mask: Tensor
    has_eos: Tensor
    texts: list[str]
    examples: list[Example]
    sampler_logprobs: Tensor | None = None
    turn_rewards: Tensor | None = None
    episodes: list[Episode] | None = None

    def __len__(self) -> int:
        return len(self.prompt_lengths)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each response that the policy chose, EOS included: [B]."""
        return self.response_mask.sum(-1)

    @property
    def extents(self) -> Tensor:
        """Tokens from the first of each response through the last that the policy chose, gaps included: [B]."""
        return extents(self.response_mask)

    def response_ids(self, row: int) -> list[int]:
        """Token ids of one response through the last that the policy chose, those in gaps included."""
        start = int(self.prompt_lengths[row])
        return self.sequence_ids[row, start : start + int(self.extents[row])].tolist()

    def all_response_ids(self) -> list[list[int]]:
        """`response_ids` of every row."""
        return [self.response_ids(row) for row in range(len(self))]

    def rows(self, index: Tensor) -> Self:
        """Some of the rows, cut to the longest sequence and the longest response among them."""
        longest_sequence = int((self.prompt_lengths + self.extents)[index].max())
        longest_response = int(self.extents[index].max())

        def pick(name: str, value: Any) -> Any:
            if value is None:
                return None
            if isinstance(value, list):
                return [value[row] for row in index.tolist()]
            if name == "sequence_ids":
                return value[index, :longest_sequence]
            return value[index, :longest_response] if value.ndim == 2 else value[index]

        return type(self)(**{field.name: pick(field.name, getattr(self, field.name)) for field in fields(self)})

    def split_by_length(self, n_rows: int, ranks: Ranks = ONE_PROCESS) -> Iterator[tuple[Tensor, Self]]:
        """Micro-batches of at most n_rows rows of similar length, so that little padding is computed.

        Each rank takes every count-th row in the order of length, so that all have the same work. Where the rows do not
        go round, a rank gets one whose mask is empty, so that all run the same number of passes.
        Yields (row numbers, rows).
        """
        order = (self.prompt_lengths + self.extents).argsort(stable=True)
        missing = -len(order) % ranks.count
        order = torch.cat([order[:1].expand(missing), order])
        is_real = torch.arange(len(order), device=order.device) >= missing
        mine = slice(ranks.index, None, ranks.count)
        for index, counts in zip(order[mine].split(n_rows), is_real[mine].split(n_rows), strict=True):
            rows = self.rows(index)
            yield index, replace(rows, response_mask=rows.response_mask & counts.unsqueeze(-1))

    def to(self, device: torch.device | str) -> Self:
        """The same rows with their tensors on another device."""
        tensors: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        """The rows of all parts, one part after the other, as wide as the widest."""

        def join(values: list[Any]) -> Any:
            if any(value is None for value in values):
                return None
            if isinstance(values[0], list):
                return [item for value in values for item in value]
            if values[0].ndim == 2:
                width = max(value.shape[1] for value in values)
                values = [torch.nn.functional.pad(value, (0, width - value.shape[1])) for value in values]
            return torch.cat(values)

        return cls(**{field.name: join([getattr(part, field.name) for part in parts]) for field in fields(cls)})


def extents(response_mask: Tensor) -> Tensor:
    """Tokens through the last one of the mask, 0 for an empty row: [B, T] -> [B]."""
    return (last_token_index(response_mask) + 1) * response_mask.any(-1)


def sample_responses(
    policy: Policy,
    tokenizer: "PreTrainedTokenizerFast",
    prompts: list[TokenizedExample],
    sampling: SamplingConfig,
    generator: torch.Generator | None = None,
) -> Responses:
    """One response to each prompt."""
    sampled = continued(policy, tokenizer, sampling, generator, [p.prompt_ids for p in prompts])
    return collate_responses(prompts, sampled, tokenizer)


def continued(
    policy: Policy,
    tokenizer: "PreTrainedTokenizerFast",
    sampling: SamplingConfig,
    generator: torch.Generator | None,
    rows: list[list[int]],
    limits: list[int] | None = None,
    turns: TurnCache | None = None,
) -> Sampled:
    """What the policy says behind each row of token ids, with limits of their own in place of max_new_tokens.

    Of rows that go on from the turn before, in `turns`, only what is new is read, where that changes nothing.
    """
    require_known_tokens(policy.language_model, tokenizer, rows)
    say_what_is_not_followed(policy.language_model, sampling)
    if policy.shortcuts.copies is None:
        n_tokens = max(map(len, rows)) + max(limits or [sampling.max_new_tokens])
        choose_copies(policy, sampling.merge_adapters, len(rows), n_tokens)
    way = way_of(policy)
    if turns is not None and not continues(policy):
        turns = None
    with decoding(policy, len(rows)):
        return sample(
            policy.language_model,
            rows,
            sampling,
            stop_token_ids(policy.language_model, tokenizer),
            generator,
            stop_strings(sampling, tokenizer),
            way,
            limits,
            turns,
        )


def collate_responses(
    prompts: list[TokenizedExample], sampled: Sampled, tokenizer: "PreTrainedTokenizerFast"
) -> Responses:
    """Put prompts and responses into rows without a gap between the two."""
    eos, response_mask = tokenizer.eos_token_id, sampled.response_mask
    ends = extents(response_mask).tolist()
    responses = [ids[:end] for ids, end in zip(sampled.response_ids, ends, strict=True)]
    rows = [
        torch.cat([torch.tensor(p.prompt_ids, device=r.device), r]) for p, r in zip(prompts, responses, strict=True)
    ]
    return Responses(
        sequence_ids=torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=eos),
        prompt_lengths=torch.tensor([len(p.prompt_ids) for p in prompts], device=response_mask.device),
        response_mask=response_mask.clone(),  # a tensor made in inference mode cannot be sent to other ranks
        has_eos=sampled.ended.clone(),
        texts=tokenizer.batch_decode(responses, skip_special_tokens=True),
        examples=[p.example for p in prompts],
        sampler_logprobs=None if sampled.logprobs is None else sampled.logprobs.clone(),
    )
