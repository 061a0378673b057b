"""Preference pairs: from files and hub datasets to token ids.

Formats: `prompt`, `chosen`, `rejected` as strings or as messages, or `chosen` and `rejected` alone as conversations
that share every turn but the last. Other columns travel along.
"""

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rlhf.config import DataConfig
from rlhf.data.examples import Example, parse_row, tokenize
from rlhf.data.rows import parse_rows
from rlhf.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Pair = tuple[Example, Example]
"""(chosen, rejected): one prompt, two completions."""


@dataclass(frozen=True)
class TokenizedPair:
    """Prompt and completion of either side in one row of token ids, EOS at the end; `columns` are the row's others."""

    chosen_ids: list[int]
    rejected_ids: list[int]
    columns: dict[str, Any]


def load_pairs(path_or_name: str, split: str) -> list[Pair]:
    """(chosen, rejected) of every row of a .jsonl or .parquet file, or of a split of a hub dataset.

    Raises UserError that lists, by file and row, where a column is missing, empty or of the wrong kind, and where
    chosen and rejected are equal (up to 20 rows); and when there is no row at all.
    """
    return parse_rows(path_or_name, split, parse_pair)


def parse_pair(row: Any, origin: str) -> Pair:
    """One row in any of the accepted formats; raises UserError naming `origin` and the column at fault."""
    if not isinstance(row, dict):
        raise UserError(
            f"{origin}: the row is {type(row).__name__}; it must be an object with prompt, chosen, rejected"
        )
    for name in ("chosen", "rejected"):
        if not row.get(name):
            raise UserError(f"{origin}: {name} is missing or empty; every row needs prompt, chosen and rejected")
    row = _with_prompt(row, origin)
    shared = {name: value for name, value in row.items() if name not in ("chosen", "rejected")}
    chosen, rejected = (parse_row({**shared, "completion": row[name]}, origin) for name in ("chosen", "rejected"))
    if chosen.completion == rejected.completion:
        raise UserError(f"{origin}: chosen and rejected are equal; there is nothing to prefer")
    return chosen, rejected


def mismatched(pairs: list[Pair], count: int, seed: int) -> list[Pair]:
    """`count` more pairs: a row's chosen completion against the chosen one of another row with another prompt.

    Both are sound, so only the prompt tells which is right. Rows that find no other prompt in a few draws are skipped.
    """
    rng = random.Random(seed)
    made = []
    for number in range(count):
        chosen = pairs[number % len(pairs)][0]
        for other, _ in rng.choices(pairs, k=8):
            if other.messages != chosen.messages and other.completion != chosen.completion:
                made.append((chosen, replace(chosen, completion=other.completion)))
                break
    return made


def tokenize_pairs(
    pairs: list[Pair], tokenizer: "PreTrainedTokenizerFast", data: DataConfig, context_length: int
) -> list[TokenizedPair]:
    """Both sides as SFT and PPO would tokenize them: chat template, completion, EOS.

    A pair is left out when either completion is longer than data.max_completion_tokens. Raises UserError for a prompt
    longer than data.max_prompt_tokens and for a row that does not fit the context.
    """
    sides = []
    for side in range(2):
        numbered = [replace(pair[side], columns={"number": number}) for number, pair in enumerate(pairs)]
        rows = tokenize(numbered, tokenizer, data, context_length)
        sides.append({row.example.columns["number"]: row.prompt_ids + (row.completion_ids or []) for row in rows})
    chosen, rejected = sides
    kept = [
        TokenizedPair(chosen[number], rejected[number], pair[0].columns)
        for number, pair in enumerate(pairs)
        if number in chosen and number in rejected
    ]
    if not kept:
        raise UserError(f"no pair has completions within data.max_completion_tokens {data.max_completion_tokens}")
    return kept


def _with_prompt(row: dict[str, Any], origin: str) -> dict[str, Any]:
    """The row itself, or with the turns that two conversations share as its prompt."""
    chosen, rejected = row["chosen"], row["rejected"]
    if row.get("prompt") or not isinstance(chosen, list) or not isinstance(rejected, list):
        return row
    if len(chosen) < 2 or chosen[:-1] != rejected[:-1]:
        raise UserError(f"{origin}: chosen and rejected must share every turn but the last, and at least one")
    return {**row, "prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:]}
