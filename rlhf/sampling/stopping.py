"""Which tokens end a response: all those that tokenizer, model folder and chat template name."""

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlhf.data.chat import closing_token
from rlhf.errors import UserError
from rlhf.models.shape import text_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def stop_token_ids(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast") -> list[int]:
    """Tokens that end a response, the tokenizer's EOS first.

    Besides it those in `eos_token_id` of the model's generation_config.json (Llama 3, Gemma and Phi-3 name several) or,
    where that names none, of its config.json, and the one with which the chat template closes an answer.
    """
    config = getattr(model, "generation_config", None)
    named = as_ids(getattr(config, "eos_token_id", None)) or as_ids(getattr(text_config(model), "eos_token_id", None))
    closing = closing_token(tokenizer)
    found = [tokenizer.eos_token_id, *named, *([] if closing is None else [closing])]
    return list(dict.fromkeys(found))


def as_ids(eos_token_id: int | Sequence[int] | None) -> list[int]:
    """One id, several or none, as transformers' `eos_token_id` may be, as a list; raises UserError for other things."""
    if eos_token_id is None:
        return []
    try:
        several = [eos_token_id] if isinstance(eos_token_id, int | str) else eos_token_id
        return [operator.index(token) for token in several]
    except TypeError as error:
        raise UserError(f"eos_token_id is {eos_token_id!r}; it must be a token id, or a list of them") from error
