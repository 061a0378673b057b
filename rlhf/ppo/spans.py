"""Process rewards: amounts that a reward gives to stretches of characters, handed to the tokens that cover them."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlhf.rewards import Span
from rlhf.sampling.responses import Responses

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def span_rewards(spans: list[list[Span]], responses: Responses, tokenizer: "PreTrainedTokenizerFast") -> Tensor:
    """Per-token rewards [B, T] from B lists of spans.

    A span's value is shared evenly by those of the policy's tokens with at least one character in [start, end); a span
    that covers none of them (empty, behind the text, a tool's words) lands on the last one, so that nothing is lost.
    In an episode of several turns the characters are those of the last turn.
    """
    rewards = torch.zeros(responses.response_mask.shape)
    for row, row_spans in enumerate(spans):
        if not row_spans:
            continue
        ids, is_own = responses.response_ids(row), responses.response_mask[row].tolist()
        first = start_of_last_turn(responses, row)
        ends = token_ends(ids[first:], tokenizer)
        tokens = list(zip([0, *ends[:-1]], ends, is_own[first:], strict=False))
        for span in row_spans:
            covered = [t for t, (a, b, chosen) in enumerate(tokens) if chosen and a < span.end and b > span.start]
            for t in covered or [len(ends) - 1]:
                rewards[row, first + t] += span.value / max(1, len(covered))
    return rewards.to(responses.response_mask.device)


def start_of_last_turn(responses: Responses, row: int) -> int:
    """Where the last turn of an episode begins among the tokens of the response; 0 without an environment."""
    if responses.episodes is None:
        return 0
    gaps = (~responses.response_mask[row, : int(responses.extents[row])]).nonzero()
    return int(gaps[-1]) + 1 if len(gaps) else 0


def token_ends(token_ids: list[int], tokenizer: "PreTrainedTokenizerFast") -> list[int]:
    """Where each token ends in the decoded text, in characters; special tokens have no extent.

    Tokens are decoded one by one, which is exact unless a character spans several tokens; then prefixes are decoded.
    """
    pieces = tokenizer.batch_decode([[token] for token in token_ids], skip_special_tokens=True)
    ends = torch.tensor([len(piece) for piece in pieces]).cumsum(0).tolist()
    if "".join(pieces) == tokenizer.decode(token_ids, skip_special_tokens=True):
        return ends
    return [len(tokenizer.decode(token_ids[: t + 1], skip_special_tokens=True)) for t in range(len(token_ids))]
