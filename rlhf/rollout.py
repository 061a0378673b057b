"""The rollout: one batch of sampled responses, and what is learned about them on the way through a PPO update."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from rlhf.config import SamplingConfig
from rlhf.data import Example, TokenizedExample
from rlhf.generation import sample
from rlhf.policy import Evaluation, Policy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True, kw_only=True)
class Responses:
    """B sampled responses.

    Attributes:
        sequence_ids: [B, L] prompt and response without a gap; filler after the response.
        prompt_lengths: [B].
        response_mask: [B, T] True from the first response token through EOS: the only loss mask there is.
        has_eos: [B] False for a response that was cut off.
        texts: B responses, special tokens removed.
        examples: The B rows that the prompts come from.
    """

    sequence_ids: Tensor
    prompt_lengths: Tensor
    response_mask: Tensor
    has_eos: Tensor
    texts: list[str]
    examples: list[Example]

    def __len__(self) -> int:
        return len(self.prompt_lengths)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each response, EOS included: [B]."""
        return self.response_mask.sum(-1)

    def response_ids(self, row: int) -> list[int]:
        """Token ids of one response, EOS included."""
        start = int(self.prompt_lengths[row])
        return self.sequence_ids[row, start : start + int(self.lengths[row])].tolist()

    def rows(self, index: Tensor) -> Self:
        """Some of the rows, cut to the longest sequence and the longest response among them."""
        longest_sequence = int((self.prompt_lengths + self.lengths)[index].max())
        longest_response = int(self.lengths[index].max())

        def pick(name: str, value: Any) -> Any:
            if isinstance(value, list):
                return [value[row] for row in index.tolist()]
            if name == "sequence_ids":
                return value[index, :longest_sequence]
            return value[index, :longest_response] if value.ndim == 2 else value[index]

        return type(self)(**{field.name: pick(field.name, getattr(self, field.name)) for field in fields(self)})

    def split_by_length(self, n_rows: int) -> Iterator[tuple[Tensor, Self]]:
        """Micro-batches of at most n_rows rows of similar length, so that little padding is computed.

        Yields (row numbers, rows).
        """
        order = (self.prompt_lengths + self.lengths).argsort(stable=True)
        for index in order.split(n_rows):
            yield index, self.rows(index)


@dataclass(frozen=True, kw_only=True)
class Rollout(Responses):
    """Responses with all that the clipped epochs and the report need; each [B, T] but for `scores` [B].

    Attributes:
        old_logprobs: Under the policy that sampled.
        ref_logprobs: Under the reference.
        entropy: Of the sampling policy at each token, in nats.
        old_values: The critic's before the update; zeros without a critic.
        scores: From the rewards, after clipping and the penalty for a missing EOS.
        kl: Per-token KL estimate.
        rewards: Scores and KL penalty spread over the tokens.
        advantages: What the policy loss weighs each token with.
        returns: What the critic should have said.
    """

    old_logprobs: Tensor
    ref_logprobs: Tensor
    entropy: Tensor
    old_values: Tensor
    scores: Tensor
    kl: Tensor
    rewards: Tensor
    advantages: Tensor
    returns: Tensor


def sample_responses(
    policy: Policy,
    tokenizer: "PreTrainedTokenizerFast",
    prompts: list[TokenizedExample],
    sampling: SamplingConfig,
    generator: torch.Generator | None = None,
) -> Responses:
    """One response to each prompt, sampled with the policy's adapters merged into the base."""
    with policy.merged():
        response_ids, response_mask = sample(
            policy.language_model, [p.prompt_ids for p in prompts], sampling, tokenizer.eos_token_id, generator
        )
    return join(prompts, response_ids, response_mask, tokenizer)


def join(
    prompts: list[TokenizedExample], response_ids: Tensor, response_mask: Tensor, tokenizer: "PreTrainedTokenizerFast"
) -> Responses:
    """Put prompts and responses ([B, T] each) into rows without a gap between the two."""
    eos = tokenizer.eos_token_id
    responses = [ids[mask] for ids, mask in zip(response_ids, response_mask, strict=True)]
    rows = [
        torch.cat([torch.tensor(p.prompt_ids, device=r.device), r]) for p, r in zip(prompts, responses, strict=True)
    ]
    return Responses(
        sequence_ids=torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=eos),
        prompt_lengths=torch.tensor([len(p.prompt_ids) for p in prompts], device=response_ids.device),
        response_mask=response_mask,
        has_eos=((response_ids == eos) & response_mask).any(-1),
        texts=tokenizer.batch_decode(responses, skip_special_tokens=True),
        examples=[p.example for p in prompts],
    )


@torch.no_grad()
def evaluate_responses(
    policy: Policy, responses: Responses, temperature: float, n_rows: int, *, with_values: bool, with_entropy: bool
) -> Evaluation:
    """`Policy.forward` over a whole batch without gradients, n_rows at a time: each result [B, T]."""
    parts, order = [], []
    for index, part in responses.split_by_length(n_rows):
        result = policy(
            part.sequence_ids, part.prompt_lengths, part.response_mask, temperature, with_values, with_entropy
        )
        to_full_width = (0, responses.response_mask.shape[1] - part.response_mask.shape[1])
        parts.append([torch.nn.functional.pad(x, to_full_width) for x in result])
        order.append(index)
    original_order = torch.cat(order).argsort()
    return Evaluation(*(torch.cat(column)[original_order] for column in zip(*parts, strict=True)))
