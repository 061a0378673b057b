"""Preference pairs: from files and hub datasets to token ids.

Formats: `prompt`, `chosen`, `rejected` as strings or as messages, or `chosen` and `rejected` alone as conversations
that share every turn but the last, or as transcripts like those of Anthropic's HH. Other columns travel along.
"""

import functools
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rlhf.config import DataConfig
from rlhf.data.columns import missing, with_known_names
from rlhf.data.examples import TokenizedExample, subset_of, tokenize_each
from rlhf.data.messages import ASSISTANT, HUMAN, Message, final_answer, read_turns
from rlhf.data.parsing import Example, parse_row
from rlhf.data.sources import parse_rows
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


def load_pairs(
    path_or_name: str, split: str, columns: Mapping[str, str] | None = None, subset: str | None = None
) -> list[Pair]:
    """(chosen, rejected) of every row of a file, a folder of files, or a split of a hub dataset, or of a subset of it.

    Raises UserError that lists, by file and row, where a column is missing, empty or of the wrong kind, and where
    chosen and rejected are equal (up to 20 rows); and when there is no row at all.
    """
    return parse_rows(path_or_name, split, functools.partial(parse_pair, columns=columns), subset)


def load_training_pairs(data: DataConfig) -> list[Pair]:
    """The rows of data.train; raises UserError as `load_pairs` does."""
    train = data.require_train()
    return load_pairs(train, data.train_split, data.columns, subset_of(data, train))


def load_held_out_pairs(data: DataConfig) -> list[Pair]:
    """The rows of data.eval, which is set; raises UserError as `load_pairs` does."""
    assert data.eval is not None
    return load_pairs(data.eval, data.eval_split, data.columns, subset_of(data, data.eval))


def parse_pair(row: Any, origin: str, columns: Mapping[str, str] | None = None) -> Pair:
    """One row in any of the accepted formats; raises UserError naming `origin` and the column at fault."""
    if not isinstance(row, dict):
        raise UserError(
            f"{origin}: the row is {type(row).__name__}; it must be an object with prompt, chosen, rejected"
        )
    given, row = row, with_known_names(row, columns or {}, origin)
    for name in ("chosen", "rejected"):
        if not row.get(name):
            raise missing(name, "every row needs prompt, chosen and rejected", given, origin)
        if not isinstance(row[name], str | list):
            raise UserError(
                f"{origin}: {name} is {type(row[name]).__name__}; it must be a string or a list of messages"
            )
    row = _with_prompt(row, origin)
    if row.get("prompt") in (None, "", []):
        raise missing("prompt", "every row needs one", given, origin)
    shared = {name: value for name, value in row.items() if name not in ("chosen", "rejected", "messages")}
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
            if other.given != chosen.given and other.completion != chosen.completion:
                made.append((chosen, replace(chosen, completion=other.completion)))
                break
    return made


def tokenize_pairs(
    pairs: list[Pair], tokenizer: "PreTrainedTokenizerFast", data: DataConfig, context_length: int
) -> list[TokenizedPair]:
    """Both sides as SFT and PPO would tokenize them: prompt, completion, EOS.

    A pair is left out when either completion is longer than data.max_completion_tokens, and with data.overlong when
    either side is too long. Raises UserError as `tokenize_each` does.
    """
    chosen, rejected = (
        tokenize_each([pair[side] for pair in pairs], tokenizer, data, context_length) for side in range(2)
    )
    kept = [
        TokenizedPair(*_sides(better, worse, pair), pair[0].columns)
        for better, worse, pair in zip(chosen, rejected, pairs, strict=True)
        if better is not None and worse is not None
    ]
    if not kept:
        raise UserError(f"no pair has completions within data.max_completion_tokens {data.max_completion_tokens}")
    return kept


def _sides(better: TokenizedExample, worse: TokenizedExample, pair: Pair) -> tuple[list[int], list[int]]:
    """Prompt and completion of each side; a prompt of both that was cut for one of them is cut for the other, too."""
    prompts = [better.prompt_ids, worse.prompt_ids]
    if pair[0].given == pair[1].given:
        prompts = [min(prompts, key=len)] * 2
    return [*prompts[0], *(better.completion_ids or [])], [*prompts[1], *(worse.completion_ids or [])]


def _with_prompt(row: dict[str, Any], origin: str) -> dict[str, Any]:
    """The row with all that chosen and rejected share in its prompt, and one text or one turn in either of them."""
    chosen, rejected = row["chosen"], row["rejected"]
    if isinstance(chosen, str) and isinstance(rejected, str):
        return row if row.get("prompt") else _split_transcripts(row, origin)
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise UserError(f"{origin}: of chosen and rejected one is text and one is a conversation; make both the same")
    better, worse = (read_turns(row[name], f"{origin}: {name}") for name in ("chosen", "rejected"))
    before = better[:-1]
    if before != worse[:-1] or not (before or row.get("prompt")):
        raise UserError(f"{origin}: chosen and rejected must share every turn but the last, and at least one")
    for name, turns in (("chosen", better), ("rejected", worse)):
        final_answer(turns, f"{origin}: {name}")
    prompt = _joined(row.get("prompt"), before, origin) if before else row["prompt"]
    return {**row, "prompt": prompt, "chosen": better[-1:], "rejected": worse[-1:]}


def _joined(prompt: Any, before: list[Message], origin: str) -> list[Message]:
    """The turns of the prompt and those before the answers, which mostly are a whole conversation, prompt and all."""
    if not prompt:
        return before
    if isinstance(prompt, str):
        if any(turn["role"] == "user" and turn["content"].strip() == prompt.strip() for turn in before):
            return before
        if before[0]["role"] == "assistant":
            return [{"role": "user", "content": prompt}, *before]
    else:
        turns = read_turns(prompt, f"{origin}: prompt")
        if before[: len(turns)] == turns:
            return before
        if before[0]["role"] != turns[-1]["role"]:
            return [*turns, *before]
    raise UserError(
        f"{origin}: chosen and rejected are conversations of {len(before) + 1} turns, which do not contain the prompt; "
        "leave out the column prompt, or make it what they begin with"
    )


def _split_transcripts(row: dict[str, Any], origin: str) -> dict[str, Any]:
    """The row with what two transcripts share as its prompt, which ends where the assistant is to answer."""
    if not all(row[name].startswith(HUMAN) and ASSISTANT in row[name] for name in ("chosen", "rejected")):
        return row
    (before, _, better), (other, _, worse) = (row[name].rpartition(ASSISTANT) for name in ("chosen", "rejected"))
    if before != other:
        raise UserError(f"{origin}: chosen and rejected must be one transcript up to the last answer")
    for name, answer in (("chosen", better), ("rejected", worse)):
        if not answer.strip():
            raise UserError(f"{origin}: {name} ends with an answer that says nothing; leave the row out")
    return {**row, "prompt": before + ASSISTANT, "chosen": better, "rejected": worse}
