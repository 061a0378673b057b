"""What the caller of `step` brings, checked and put into the form of a rollout."""

import dataclasses
import math
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from rlhf.config.checks import require
from rlhf.data.examples import Example, TokenizedExample
from rlhf.errors import UserError
from rlhf.ppo.credit import advantages_and_returns
from rlhf.ppo.rollout import Rollout
from rlhf.ppo.trainer import Callback, PPOTrainer
from rlhf.rewards import Scores
from rlhf.sampling.decode import Sampled
from rlhf.sampling.responses import Responses, collate_responses

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class Batch(NamedTuple):
    """B responses with their scores; `token_rewards` [B] holds a reward per token where one was given, else nothing."""

    responses: Responses
    scores: Scores
    token_rewards: list[list[float]]


class StepTrainer(PPOTrainer):
    """The update of PPO on responses and scores that the caller brings.

    Attributes:
        given: What was brought, set before each update.
    """

    given: Batch

    def next_prompts(self) -> list[TokenizedExample]:
        """None: the responses are there."""
        return []

    def sample_and_score(self, prompts: list[TokenizedExample]) -> tuple[Responses, list[Future[Scores]]]:
        """The caller's responses and scores."""
        scores: Future[Scores] = Future()
        scores.set_result(self.given.scores)
        return self.given.responses.to(self.policy.device), [scores]


class TokenRewards(Callback):
    """Adds the rewards per token that came with a step, before advantages are final."""

    def after_advantages(self, trainer: PPOTrainer, rollout: Rollout) -> Rollout | None:
        assert isinstance(trainer, StepTrainer)
        rows = [row for share in trainer.ranks.gather(trainer.given.token_rewards) for row in share]
        if not any(rows):
            return None
        given = torch.zeros_like(rollout.rewards)  # [B, T]
        for row, values in enumerate(rows):
            given[row, : len(values)] = torch.tensor(values)
        rewards = rollout.rewards + given
        advantages, returns = advantages_and_returns(trainer.config, rewards, rollout.old_values, rollout.response_mask)
        scores = rollout.scores + given.sum(-1)
        return dataclasses.replace(rollout, scores=scores, rewards=rewards, advantages=advantages, returns=returns)


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
    prompt_rows, response_rows = id_rows("queries", queries), id_rows("responses", responses)
    n = len(prompt_rows)
    given = {"responses": response_rows, "scores": scores, "response_masks": response_masks}
    for name, rows in given.items():
        m = n if rows is None else len(rows)
        require(m == n, f"step got {n} queries but {m} {name}; one of each per row")
    if response_masks is not None:
        response_rows = [cut(*pair, row) for row, pair in enumerate(zip(response_rows, response_masks, strict=True))]
    totals, token_rewards = read_scores(scores, [len(row) for row in response_rows])
    return Batch(
        responses=assemble(prompt_rows, response_rows, tokenizer, stop_ids),
        scores=Scores(totals, {"score": list(totals)}, [[] for _ in totals]),
        token_rewards=token_rewards,
    )


def id_rows(name: str, rows: Any) -> list[Tensor]:
    """A batch of token ids as 1-D tensors on the CPU; each may be a list, a tensor [L], or a tensor [1, L]."""
    try:
        ids = [torch.as_tensor(row) for row in rows]
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
    return [row.long().cpu() for row in ids]


def without_queries(queries: Iterable[Tensor], responses: Sequence[Tensor]) -> list[Tensor] | None:
    """The responses without a copy of their query in front; None unless each of them has one."""
    rests = []
    for query, response in zip(queries, responses, strict=False):
        if len(response) <= len(query) or not torch.equal(response[: len(query)], query):
            return None
        rests.append(response[len(query) :])
    return rests


def cut(response: Tensor, mask: Any, row: int) -> Tensor:
    """The response up to where its mask ends; raises UserError for a mask with a gap."""
    keep = torch.as_tensor(mask).bool().cpu()
    n = int(keep.sum())
    require(
        keep.shape == response.shape and n > 0 and bool(keep[:n].all()),
        f"response_masks[{row}] must be ones, then zeros, one per token of the response: tokens in the middle cannot "
        "be left out, because the advantages of those before would skip them",
    )
    return response[:n]


def read_scores(scores: Any, lengths: list[int]) -> tuple[list[float], list[list[float]]]:
    """Scores [B] and rewards per token [B], the latter empty for a row with a score alone.

    A row is a number or a tensor with one element, or a tensor with one number per response token.
    """
    totals, tokens = [], []
    for row, (given, length) in enumerate(zip(scores, lengths, strict=True)):
        values = torch.as_tensor(given).float().flatten().tolist()
        is_score = len(values) == 1
        require(
            is_score or len(values) == length,
            f"scores[{row}] holds {len(values)} numbers; it must be one, or one per token of its response: {length}",
        )
        if not all(map(math.isfinite, values)):
            raise UserError(f"scores[{row}] is {values if len(values) > 1 else values[0]}; it must be finite")
        totals.append(values[0] if is_score else 0.0)
        tokens.append([] if is_score else values)
    return totals, tokens


def assemble(
    queries: list[Tensor], responses: list[Tensor], tokenizer: "PreTrainedTokenizerFast", stop_ids: Collection[int]
) -> Responses:
    """Rows of queries and responses as a rollout begins."""
    texts = tokenizer.batch_decode(queries, skip_special_tokens=True)
    examples = [Example(({"role": "user", "content": text},), None, {}, "step") for text in texts]
    prompts = [TokenizedExample(e, ids.tolist(), None) for e, ids in zip(examples, queries, strict=True)]
    lengths = torch.tensor([len(response) for response in responses])
    padded = torch.nn.utils.rnn.pad_sequence(responses, batch_first=True, padding_value=tokenizer.eos_token_id)
    mask = torch.arange(padded.shape[1]) < lengths.unsqueeze(-1)
    ended = torch.tensor([int(response[-1]) in (tokenizer.eos_token_id, *stop_ids) for response in responses])
    return collate_responses(prompts, Sampled(padded, mask, ended), tokenizer)
