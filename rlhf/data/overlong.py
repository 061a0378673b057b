"""Prompts that are too long, shortened from the left, so that they still are what they were: a text, a conversation."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from rlhf.data.chat import text_ids
from rlhf.data.parsing import Example
from rlhf.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def shortened(
    example: Example,
    limit: int,
    tokenizer: "PreTrainedTokenizerFast",
    ids_of: Callable[[Example], list[int]],
) -> tuple[Example, list[int]]:
    """The example with a prompt of at most `limit` tokens, and these, which `ids_of` makes of it.

    A text loses its first tokens. A conversation keeps its system turn and loses its first turns, up to a later user
    turn; where the last user turn alone is too long, what it says loses its first tokens. Raises UserError where that
    does not suffice.
    """
    ids = ids_of(example)
    while len(ids) > limit:
        shorter = _without_first_turns(example) or _without_first_tokens(example, len(ids) - limit, tokenizer)
        if shorter is None:
            raise UserError(
                f"{example.origin}: the prompt has {len(ids)} tokens and cannot be shortened to {limit} by taking away "
                "what comes first; raise data.max_prompt_tokens"
            )
        example, ids = shorter, ids_of(shorter)
    return example, ids


def _without_first_turns(example: Example) -> Example | None:
    """The conversation without its first exchange; None for a text, and where only one user turn is left."""
    first = _after_system(example)
    later = [at for at, turn in enumerate(example.turns) if at > first and turn["role"] == "user"]
    return replace(example, given=(*example.turns[:first], *example.turns[later[0] :])) if later else None


def _without_first_tokens(example: Example, count: int, tokenizer: "PreTrainedTokenizerFast") -> Example | None:
    """The example whose text, or first turn behind the system turn, lacks its first tokens; None if it has too few."""
    if isinstance(example.given, str):
        text = _tail(example.given, count, tokenizer)
        return replace(example, given=text) if text else None
    first = _after_system(example)
    if first == len(example.turns):
        return None
    turn = example.turns[first]
    text = _tail(turn["content"], count, tokenizer)
    turns = (*example.turns[:first], {**turn, "content": text}, *example.turns[first + 1 :])
    return replace(example, given=turns) if text else None


def _after_system(example: Example) -> int:
    """Where the first turn stands that is not the system's."""
    return next((at for at, turn in enumerate(example.turns) if turn["role"] != "system"), len(example.turns))


def _tail(text: str, count: int, tokenizer: "PreTrainedTokenizerFast") -> str:
    """The text without its first tokens, and without what is left of a character that began in them."""
    [ids] = text_ids(tokenizer, [text])
    tail: str = tokenizer.decode(ids[count:], clean_up_tokenization_spaces=False)
    return tail.lstrip("\N{REPLACEMENT CHARACTER}")
