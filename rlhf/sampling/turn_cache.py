"""Keys and values of conversations from one turn to the next, so that a turn reads only what is new in it."""

from typing import NamedTuple

from torch import Tensor

States = list[tuple[Tensor, ...]]
"""Keys and values of one row, each [heads, n, width], in every layer: those of its tokens, from the first one on."""


class Read(NamedTuple):
    """A row that was read: its tokens, and the states of these and perhaps of more."""

    ids: list[int]
    states: States


class TurnCache:
    """The KV cache of a batch of conversations between two turns.

    A row goes on from the row that is its prefix. From turn to turn rows have to keep their order, and may be left out.
    The weights must stay the same as long as the cache is in use.
    """

    def __init__(self) -> None:
        self.reads: list[Read] = []
        self.states: dict[int, States] = {}

    def put(self, numbers: list[int], states: list[States]) -> None:
        """Keep the states of rows of this turn, given by their numbers, that take no more tokens."""
        self.states |= dict(zip(numbers, states, strict=True))

    def close(self, rows: list[list[int]]) -> None:
        """End the turn, after all its rows were put: these are the tokens of which there are states."""
        self.reads = [Read(ids, self.states[number]) for number, ids in enumerate(rows)]
        self.states = {}

    def known(self, rows: list[list[int]]) -> tuple[int, list[States]]:
        """How many of the last tokens to read of each row, N, and the states of those before, as far as there are any.

        N is the number of tokens that are new in the row with the most of them, and the same for all: a row with less
        reads some again instead of padding between what is known and what is new, which would move the one away from
        the other in the eyes of a sliding window. Where a row is unknown, all are read from their first token.
        """
        candidates = iter(self.reads)
        found = [next((read for read in candidates if row[: len(read.ids)] == read.ids), None) for row in rows]
        reads = [read for read in found if read is not None]
        if len(reads) < len(rows):
            return max(map(len, rows)), []
        n_new = [len(row) - len(read.ids) for row, read in zip(rows, reads, strict=True)]
        n_read = max(1, *n_new)  # what comes next is read off the last token
        n_known = [max(0, len(row) - n_read) for row in rows]
        return n_read, [
            [(keys[:, :n], values[:, :n]) for keys, values in read.states]
            for read, n in zip(reads, n_known, strict=True)
        ]


def padded_left(rows: list[Tensor]) -> Tensor:
    """Keys, or values, of B rows in one layer: [heads, n, width] each -> [B, heads, the longest n, width]."""
    heads, _, width = rows[0].shape
    longest = max(row.shape[1] for row in rows)
    padded = rows[0].new_zeros(len(rows), heads, longest, width)
    for place, row in zip(padded, rows, strict=True):
        place[:, longest - row.shape[1] :] = row
    return padded
