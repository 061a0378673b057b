"""Prompts and completions: from files and hub datasets to token ids.

The formats are those of the `datasets` ecosystem: `prompt`/`completion` strings, conversational messages in either
column, a single `messages` conversation whose last assistant turn is the completion, or prompts alone, under these
names or those of `rlhf.data.columns`. Other columns travel along to the rewards.
"""

import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rlhf.config import DataConfig
from rlhf.config.checks import require
from rlhf.data.chat import closing_token, control_token, text_ids
from rlhf.data.messages import read_tools, transcript_turns
from rlhf.data.overlong import shortened
from rlhf.data.parsing import Example, parse_row
from rlhf.data.rendering import Rendering
from rlhf.data.rows import for_each
from rlhf.data.sources import is_on_hub, parse_rows
from rlhf.errors import UserError
from rlhf.parallel.launch import rank

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class TokenizedExample:
    """An example as the model sees it; completion_ids end with the token that ends a turn."""

    example: Example
    prompt_ids: list[int]
    completion_ids: list[int] | None


def load_examples(
    path_or_name: str,
    split: str,
    columns: Mapping[str, str] | None = None,
    subset: str | None = None,
    text_is_answer: bool = False,
    may_be_empty: bool = False,
) -> list[Example]:
    """Read a file, the files of a folder, or a split of a hub dataset, or of a subset of it.

    Raises UserError that lists every bad row (up to 20) by file and row number, or says that there is none at all.
    """
    parse = functools.partial(parse_row, columns=columns, text_is_answer=text_is_answer, may_be_empty=may_be_empty)
    return parse_rows(path_or_name, split, parse, subset)


def load_training(data: DataConfig, text_is_answer: bool = False) -> list[Example]:
    """The rows of data.train; raises UserError as `load_examples` does."""
    train = data.require_train()
    require_split_of_hub(train, "train_split", data.train_split, DataConfig.train_split)
    return load_examples(train, data.train_split, data.columns, subset_of(data, train), text_is_answer)


def load_held_out(data: DataConfig, text_is_answer: bool = False) -> list[Example]:
    """The rows of data.eval, none where it is not set; raises UserError as `load_examples` does."""
    if data.eval is None:
        return []
    require_split_of_hub(data.eval, "eval_split", data.eval_split, DataConfig.eval_split)
    return load_examples(data.eval, data.eval_split, data.columns, subset_of(data, data.eval), text_is_answer)


def require_split_of_hub(place: str, name: str, split: str, default: str) -> None:
    """Raise UserError for a split that was asked of a file."""
    require(
        split == default or is_on_hub(place),
        f"data.{name} is {split!r}, a split of a hub dataset, but {place!r} is on this machine; leave it out",
    )


def subset_of(data: DataConfig, path_or_name: str) -> str | None:
    """data.name for a dataset of the hub, None for a file; raises UserError where no data are on the hub."""
    places = [place for place in (data.train, data.eval) if place is not None]
    require(
        data.name is None or any(map(is_on_hub, places)),
        f"data.name is {data.name!r}, the subset of a hub dataset, but the data are files; remove it",
    )
    return data.name if is_on_hub(path_or_name) else None


def warn_of_leak(train: list[Example], held_out: list[Example]) -> None:
    """Say on standard error, in one line, how many of the held-out prompts are trained on too, if any."""
    known = {_essence(example) for example in train}
    leaked = [example for example in held_out if _essence(example) in known]
    if leaked:
        _say(
            f"warning: {len(leaked)} of {len(held_out)} held-out prompts are also in the training data, for example "
            f"{_shown(leaked[0])}; what is measured on them says nothing about new prompts"
        )


def tokenize(
    examples: list[Example],
    tokenizer: "PreTrainedTokenizerFast",
    data: DataConfig,
    context_length: int,
    max_new_tokens: int = 0,
) -> list[TokenizedExample]:
    """The examples that `tokenize_each` keeps; raises UserError as it does, and where none is left."""
    rows = tokenize_each(examples, tokenizer, data, context_length, max_new_tokens)
    kept = [row for row in rows if row is not None]
    if not kept:
        limits = [f"a completion within data.max_completion_tokens {data.max_completion_tokens}"]
        if data.overlong == "drop":
            prompt = f"a prompt within data.max_prompt_tokens {data.max_prompt_tokens} and the model's context"
            limits = [prompt, *limits] if data.max_completion_tokens else [prompt]
        raise UserError(f"no row has {' and '.join(limits)}")
    return kept


def tokenize_each(
    examples: list[Example],
    tokenizer: "PreTrainedTokenizerFast",
    data: DataConfig,
    context_length: int,
    max_new_tokens: int = 0,
) -> list[TokenizedExample | None]:
    """Each example as the model sees it, None where it is left out.

    A completion in a conversation ends as the chat template ends a turn, else with EOS.

    Left out are rows whose completion is longer than data.max_completion_tokens. A prompt that is longer than
    data.max_prompt_tokens, or does not leave room for completion (or max_new_tokens) in the model's context, is dealt
    with as data.overlong says. Raises UserError that lists every row that the chat template refuses or that is too
    long.
    """
    rendering = Rendering.of(data)
    put = for_each(examples, lambda example: as_seen(example, rendering))
    _warn_of_control_tokens(put, tokenizer)
    require(
        not data.chat_template_kwargs or any(example.is_conversation for example in put),
        "data.chat_template_kwargs is set, but every row is text; set data.as_chat to put texts as user turns",
    )

    def ids_of(rows: list[Example]) -> list[list[int]]:
        prompts, tools, origins = zip(*((row.given, row.tools, row.origin) for row in rows), strict=True)
        return rendering.ids(tokenizer, prompts, tools, origins)

    dropped: list[Example] = []
    closing = closing_token(tokenizer)

    def within_limits(row: tuple[Example, list[int], list[int]]) -> TokenizedExample | None:
        example, prompt, completion = row
        end = tokenizer.eos_token_id if closing is None or not example.is_conversation else closing
        ids = [*completion, end] if example.completion is not None else None
        if data.max_completion_tokens and len(ids or []) > data.max_completion_tokens:
            return None
        read = 0 if max_new_tokens else len(ids or [])  # where responses are sampled, a completion is a reference
        free = context_length - read
        limit = min(data.max_prompt_tokens, free if data.overlong == "error" else free - max_new_tokens)
        if len(prompt) > limit and data.overlong == "drop":
            dropped.append(example)
            return None
        if len(prompt) > limit > 0 and data.overlong == "truncate_left":
            example, prompt = shortened(example, limit, tokenizer, lambda shorter: ids_of([shorter])[0])
        _check_length(example, len(prompt), read, data, context_length)
        return TokenizedExample(example, prompt, ids)

    completions = text_ids(tokenizer, [example.completion or "" for example in put])
    kept = for_each(zip(put, ids_of(put), completions, strict=True), within_limits)
    if dropped:
        _say(
            f"data.overlong is drop: {len(dropped)} of {len(examples)} rows are left out, whose prompt is longer than "
            f"data.max_prompt_tokens {data.max_prompt_tokens} or than the model's context of {context_length} allows, "
            f"for example {_shown(dropped[0])}"
        )
    return kept


def as_seen(example: Example, rendering: Rendering) -> Example:
    """The example with its prompt as it is put to the model: texts as user turns, the system prompt in front."""
    given = rendering.put(example.given)
    if given is example.given:
        return example
    if not example.given:
        raise UserError(
            f"{example.origin}: a column text alone has no prompt that could be a user turn; "
            "leave out data.as_chat and data.system_prompt"
        )
    completion, columns = example.completion, example.columns
    if isinstance(example.given, str):
        if columns.get("tools") is not None:
            columns = {**columns, "tools": read_tools(columns["tools"], f"{example.origin}: tools")}
        if completion and transcript_turns(example.given):
            completion = completion.strip()  # the space behind "Assistant:" is the transcript's
    return replace(example, given=given, completion=completion, columns=columns)


def check_fits(examples: list[TokenizedExample], max_new_tokens: int, context_length: int) -> None:
    """Raise UserError unless every prompt leaves room for a whole response."""
    for e in examples:
        if len(e.prompt_ids) + max_new_tokens > context_length:
            raise UserError(
                f"{e.example.origin}: prompt of {len(e.prompt_ids)} tokens + sampling.max_new_tokens "
                f"{max_new_tokens} is more than the model's context of {context_length}; lower the limit"
            )


def collate_columns(examples: list[Example]) -> dict[str, list[Any]]:
    """The columns of several rows as rewards receive them: name -> one item per row, None where a row lacks it."""
    names = dict.fromkeys(name for example in examples for name in example.columns)
    return {name: [example.columns.get(name) for example in examples] for name in names}


def _check_length(example: Example, n_prompt: int, n_completion: int, data: DataConfig, context_length: int) -> None:
    if n_prompt == 0 and example.given:
        raise UserError(f"{example.origin}: the prompt has no tokens once it is in the chat template")
    if n_prompt > data.max_prompt_tokens:
        raise UserError(
            f"{example.origin}: the prompt has {n_prompt} tokens, more than data.max_prompt_tokens "
            f"{data.max_prompt_tokens}; shorten it, raise the limit, or set data.overlong"
        )
    read = "prompt and completion" if n_completion else "prompt and template"
    if n_prompt + n_completion > context_length:
        raise UserError(
            f"{example.origin}: {read} have {n_prompt + n_completion} tokens, more than the model's context of "
            f"{context_length}; data.max_completion_tokens or data.overlong leave such rows out"
        )


def _warn_of_control_tokens(examples: list[Example], tokenizer: "PreTrainedTokenizerFast") -> None:
    """Say how many texts hold what looks like a control token: they may be rendered conversations."""
    control = control_token(tokenizer)
    rendered = [e for e in examples if isinstance(e.given, str) and control is not None and control.search(e.given)]
    if rendered:
        _say(
            f"warning: {len(rendered)} of {len(examples)} prompts are texts with the characters of a control token, "
            f"for example {_shown(rendered[0])}; they are read as characters: if these are rendered conversations, "
            "give lists of messages instead"
        )


def _essence(example: Example) -> tuple[tuple[str, str], ...]:
    """What makes two prompts the same: their turns, or their text, whatever white space surrounds them."""
    if isinstance(example.given, str):
        return (("user", (example.given or str(example.completion)).strip()),)
    return tuple((turn["role"], turn["content"].strip()) for turn in example.given)


def _shown(example: Example) -> str:
    text = example.prompt or str(example.completion)
    return f"{text if len(text) <= 60 else text[:60] + '...'!r} ({example.origin})"


def _say(line: str) -> None:
    if rank() == 0:
        print(line, file=sys.stderr)
