"""Between the two ways to lay out numbers per token: [B, T] from the first response token, TRL's along the sequence.

TRL has logits[:, :-1], so that column c of its [B, L - 1] belongs to token c + 1 of query and response together.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from rlhf.sampling.responses import Responses


@dataclass(frozen=True)
class Places:
    """Where each response token stands in both layouts; N tokens in all.

    Attributes:
        rows: [N] row of each.
        steps: [N] its column in [B, T].
        columns: [N] its column in [B, L - 1].
        shape: (B, T).
    """

    rows: Tensor
    steps: Tensor
    columns: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, responses: Responses, offsets: Tensor | int = 0) -> Self:
        """Those of all response tokens, gaps included.

        Args:
            responses: B rows.
            offsets: [B] pad tokens in front of each sequence.
        """
        mask = responses.response_mask
        whole = torch.arange(mask.shape[1], device=mask.device) < responses.extents.unsqueeze(-1)
        rows, steps = whole.nonzero(as_tuple=True)
        columns = (responses.prompt_lengths + offsets)[rows] + steps - 1
        return cls(rows, steps, columns, (mask.shape[0], mask.shape[1]))

    def along_sequence(self, x: Tensor, width: int) -> Tensor:
        """[B, T] -> [B, width], 0 (False) elsewhere."""
        return x.new_zeros(len(x), width).index_put((self.rows, self.columns), x[self.rows, self.steps])

    def of_response(self, x: Tensor) -> Tensor:
        """[B, L - 1] -> [B, T], 0 (False) elsewhere."""
        return x.new_zeros(self.shape).index_put((self.rows, self.steps), x[self.rows, self.columns])


def query_rows(responses: Responses) -> list[Tensor]:
    """B queries as 1-D tensors."""
    return [ids[:n] for ids, n in zip(responses.sequence_ids, responses.prompt_lengths.tolist(), strict=True)]


def response_rows(responses: Responses) -> list[Tensor]:
    """B responses as 1-D tensors, what lies in gaps included."""
    starts, ends = responses.prompt_lengths, responses.prompt_lengths + responses.extents
    return [ids[a:b] for ids, a, b in zip(responses.sequence_ids, starts.tolist(), ends.tolist(), strict=True)]
