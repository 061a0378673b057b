"""The loss of supervised fine-tuning on held-out rows."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from rlhf.evaluation.best import Means
from rlhf.parallel.ranks import Ranks

if TYPE_CHECKING:
    from transformers import PreTrainedModel


IGNORED = -100
"""The label of a token that is not trained on, as transformers has it."""


class Row(NamedTuple):
    """L token ids, and for each of them 1 where it is trained on, else 0."""

    input_ids: list[int]
    completion_mask: list[int]


def completion_means(model: "PreTrainedModel", rows: list[Row], batch_size: int, ranks: Ranks) -> Means:
    """`loss`, the mean of -log p in nats, and `token_accuracy`, over the tokens of the masks of all rows of all ranks.

    Every token weighs the same, whatever row it stands in.

    Args:
        model: In any mode; it is put into that mode again.
        rows: Those of this rank.
        batch_size: Rows per forward pass.
        ranks: The processes.
    """
    was_training = model.training
    model.eval()
    try:
        sums = ranks.exchange(lambda: _sums(model, rows, batch_size))
    finally:
        model.train(was_training)
    loss, right, count = (sum(column) for column in zip(*sums, strict=True))
    return {"loss": loss / count, "token_accuracy": right / count}


@torch.no_grad()
def _sums(model: "PreTrainedModel", rows: list[Row], batch_size: int) -> tuple[float, int, int]:
    """Sum of -log p, tokens that are the likeliest, and tokens; rows of similar length together.

    Through the forward pass of the training, which never holds the logits of all tokens where it counts the right ones.
    """
    ordered = sorted(rows, key=lambda row: len(row.input_ids))
    loss, right, count = 0.0, 0, 0
    for start in range(0, len(ordered), batch_size):
        some = ordered[start : start + batch_size]
        ids, is_real, mask = (
            _padded(column, model)
            for column in (
                [row.input_ids for row in some],
                [[1] * len(row.input_ids) for row in some],
                [row.completion_mask for row in some],
            )
        )
        labels = ids.masked_fill(mask == 0, IGNORED)
        output = model(input_ids=ids, attention_mask=is_real, labels=labels)
        n = int((labels[:, 1:] != IGNORED).sum())  # the first token is predicted by nothing
        hits = getattr(output, "num_correct_tokens", None)
        if hits is None:
            hits = (output.logits[:, :-1].argmax(-1) == labels[:, 1:]).sum()
        loss, right, count = loss + float(output.loss) * n, right + int(hits), count + n
    return loss, right, count


def _padded(rows: Iterable[list[int]], model: "PreTrainedModel") -> Tensor:
    """[B, L], padded on the right with 0."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(model.device)
