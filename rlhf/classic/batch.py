"""What the caller of `step` brings, checked and put into the form of a rollout."""

import math
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from rlhf.classic.padding import unpadded_queries, unpadded_response
from rlhf.config.checks import require
from rlhf.data.examples import TokenizedExample
from rlhf.data.parsing import Example
from rlhf.errors import UserError
from rlhf.rewards import Scores
from rlhf.sampling.decode import Sampled
from rlhf.sampling.responses import Responses, collate_responses

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class Batch(NamedTuple):
    """B responses with their scores; `token_rewards` [B] holds a reward per token where one was given, else nothing.

    `unpadded` counts the rows that came with pad tokens, which were taken off.
    """

    responses: Responses
    scores: Scores
    token_rewards: list[list[float]]
    unpadded: int


def read_batch(
    queries: Any,
    responses: Any,
    scores: Any,
    response_masks: Any,
    tokenizer: "PreTrainedTokenizerFast",
    stop_ids: Collection[int] = (),
) -> Batch:
    """Check what was given to `step` and put it together; see there for what is accepted.

    A response that ends with EOS, or one of `stop_ids`, counts as complete.
    Raises UserError that names the row.
    """
    given_queries, given_responses = id_rows("queries", queries), id_rows("responses", responses)
    score_list = score_rows(scores)
    n = len(given_queries)
    for name, rows in {"responses": given_responses, "scores": score_list, "response_masks": response_masks}.items():
        m = n if rows is None else len(rows)
        require(m == n, f"step got {n} queries but {m} {name}; one of each per row")
    query_list = unpadded_queries(given_queries, tokenizer)
    if response_masks is None:
        kept = [
            response if len(score) > 1 else unpadded_response(response, tokenizer)
            for response, score in zip(given_responses, score_list, strict=True)
        ]
        masks = [torch.ones_like(response, dtype=torch.bool) for response in kept]
    else:
        masks = [
            checked_mask(mask, response, row)
            for row, (mask, response) in enumerate(zip(mask_rows(response_masks), given_responses, strict=True))
        ]
        kept = [response[: len(mask)] for response, mask in zip(given_responses, masks, strict=True)]
    totals, token_rewards = read_scores(score_list, [len(response) for response in given_responses], masks)
    return Batch(
        responses=assemble(query_list, kept, masks, tokenizer, stop_ids),
        scores=Scores(totals, {"score": list(totals)}, [[] for _ in totals]),
        token_rewards=token_rewards,
        unpadded=sum(
            len(q) < len(given_q) or (response_masks is None and len(r) < len(given_r))
            for q, given_q, r, given_r in zip(query_list, given_queries, kept, given_responses, strict=True)
        ),
    )


def id_rows(name: str, rows: Any) -> list[Tensor]:
    """A batch of token ids as 1-D tensors on the CPU.

    Each may be a list, a tensor [L] or [1, L], or, of a single token, a tensor without a dimension, which `squeeze`
    makes of it.
    """
    try:
        ids = [row.reshape(1) if torch.is_tensor(row) and row.ndim == 0 else torch.as_tensor(row) for row in rows]
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{name} must be a list with one row of token ids per sample ({error})") from error
    require(bool(ids), f"{name} is empty; give at least one row")
    ids = [row.squeeze(0) if row.ndim == 2 and len(row) == 1 else row for row in ids]
    for number, row in enumerate(ids):
        require(
            row.ndim == 1 and len(row) > 0 and not row.is_floating_point(),
            f"{name}[{number}] has shape {tuple(row.shape)} and type {row.dtype}; it must be a row of at least one "
            "token id",
        )
        least, most = int(row.min()), int(row.max())
        require(least >= 0 and most < 2**31, f"{name}[{number}] holds {least if least < 0 else most}, no token id")
    return [row.long().cpu() for row in ids]


def score_rows(scores: Any) -> list[Tensor]:
    """A batch of scores as 1-D tensors on the CPU: each a number, a tensor without a dimension, or one [1] or [T]."""
    rows = [row.detach().float() for row in tensors("scores", scores, "a number, or one per token of its response")]
    for number, row in enumerate(rows):
        require(row.ndim <= 1, f"scores[{number}] has shape {tuple(row.shape)}; it must be a number, or one per token")
    return [row.reshape(-1) for row in rows]


def mask_rows(masks: Any) -> list[Tensor]:
    """A batch of masks as tensors on the CPU."""
    return tensors("response_masks", masks, "a row of 0 and 1, one per token of its response")


def tensors(name: str, rows: Any, kind: str) -> list[Tensor]:
    """A batch as tensors on the CPU; raises UserError for a row that is something else."""
    require(isinstance(rows, Iterable), f"{name} is {rows!r}; it must be a list, for each query {kind}")
    result = []
    for number, row in enumerate(rows):
        try:
            result.append(torch.as_tensor(row).cpu())
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{name}[{number}] is {row!r}; it must be {kind}") from error
    return result


def without_queries(queries: Sequence[Tensor], responses: Sequence[Tensor]) -> list[Tensor] | None:
    """The responses without a copy of their query in front; None unless each of them has one."""
    rests = []
    for query, response in zip(queries, responses, strict=False):
        if len(response) <= len(query) or not torch.equal(response[: len(query)], query):
            return None
        rests.append(response[len(query) :])
    return rests


def checked_mask(mask: Tensor, response: Tensor, row: int) -> Tensor:
    """A mask as booleans, through its last one: what comes after it is no part of the response."""
    require(
        mask.shape == response.shape and bool(((mask == 0) | (mask == 1)).all()) and bool(mask.any()),
        f"response_masks[{row}] must hold a 0 or 1 per token of the response, {len(response)} in all, and a 1 at least "
        "once",
    )
    return mask.bool()[: int(mask.nonzero()[-1]) + 1]


def read_scores(rows: list[Tensor], lengths: list[int], masks: list[Tensor]) -> tuple[list[float], list[list[float]]]:
    """Scores [B] and rewards per token [B], the latter empty for a row with a score alone.

    A row is one number, or one per token of the response as it was given or as its mask has cut it.
    """
    totals, tokens = [], []
    for row, (given, length, mask) in enumerate(zip(rows, lengths, masks, strict=True)):
        values = given.tolist()
        is_score = len(values) == 1
        require(
            is_score or len(values) in (length, len(mask)),
            f"scores[{row}] holds {len(values)} numbers; it must be one, or one per token of its response: {length}",
        )
        if not all(map(math.isfinite, values)):
            raise UserError(f"scores[{row}] is {values if len(values) > 1 else values[0]}; it must be finite")
        chosen = [*mask.tolist(), *[False] * length]
        lost = [] if is_score else [t for t, value in enumerate(values) if value and not chosen[t]]
        require(not lost, f"scores[{row}] pays token {lost[:1]}, which response_masks[{row}] leaves out; pay another")
        totals.append(values[0] if is_score else 0.0)
        tokens.append([] if is_score else values[: len(mask)])
    return totals, tokens


def assemble(
    queries: list[Tensor],
    responses: list[Tensor],
    masks: list[Tensor],
    tokenizer: "PreTrainedTokenizerFast",
    stop_ids: Collection[int],
) -> Responses:
    """Rows of queries and responses as a rollout begins."""
    texts = tokenizer.batch_decode(queries, skip_special_tokens=True)
    examples = [Example(text, None, {}, "step") for text in texts]
    prompts = [TokenizedExample(e, ids.tolist(), None) for e, ids in zip(examples, queries, strict=True)]
    padded = torch.nn.utils.rnn.pad_sequence(responses, batch_first=True, padding_value=tokenizer.eos_token_id)
    mask = torch.nn.utils.rnn.pad_sequence(masks, batch_first=True, padding_value=False)
    ended = torch.tensor([int(response[-1]) in (tokenizer.eos_token_id, *stop_ids) for response in responses])
    return collate_responses(prompts, Sampled(padded, mask, ended), tokenizer)
