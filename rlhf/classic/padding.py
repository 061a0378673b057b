"""Pad tokens at the edges of rows that a tokenizer has padded: the policy would read them as text."""

from typing import TYPE_CHECKING

from torch import Tensor

from rlhf.config.checks import require

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def unpadded_queries(queries: list[Tensor], tokenizer: "PreTrainedTokenizerBase") -> list[Tensor]:
    """Queries without the pad tokens that were put in front of them or behind them.

    A pad token that is neither BOS nor EOS is never text. One that is may stand at an edge on purpose, once: it is
    padding where there are two of it, or where of rows of the same length only some have it.

    Raises UserError for a row of pad tokens alone.
    """
    pad = tokenizer.pad_token_id
    if pad is None:
        return queries
    front, back = ([run(row, pad, step) for row in queries] for step in (1, -1))
    same_length = len({len(row) for row in queries}) == 1
    is_text = pad in (tokenizer.bos_token_id, tokenizer.eos_token_id)
    for number, (row, pads) in enumerate(zip(queries, front, strict=True)):
        require(
            pads < len(row) or (is_text and pads == 1), f"queries[{number}] is {len(row)} pad tokens; give it some text"
        )
    if is_text:
        letter = tokenizer("a")["input_ids"]
        front = surplus(front, same_length, own=int(letter[0] == pad))
        back = surplus(back, same_length, own=int(letter[-1] == pad))
    return [row[a : len(row) - b] for row, a, b in zip(queries, front, back, strict=True)]


def unpadded_response(response: Tensor, tokenizer: "PreTrainedTokenizerBase") -> Tensor:
    """A response without the pad tokens behind it; where the pad token is EOS, its first one stays."""
    pad = tokenizer.pad_token_id
    if pad is None:
        return response
    kept = int(pad == tokenizer.eos_token_id)
    surplus = min(run(response, pad, -1) - kept, len(response) - 1)
    return response[: len(response) - max(0, surplus)]


def run(row: Tensor, token: int, step: int) -> int:
    """How often a token stands at the front (step 1) or at the back (step -1) of a row."""
    ids = row.tolist()[::step]
    return next((n for n, other in enumerate(ids) if other != token), len(ids))


def surplus(runs: list[int], same_length: bool, own: int) -> list[int]:
    """What of each row's run is padding; `own` of them a tokenizer puts there itself."""
    if max(runs) <= 1 and (len(set(runs)) == 1 or not same_length):
        return [0] * len(runs)
    return [max(0, n - own) for n in runs]
