"""Prompts and completions: from files and hub datasets to token ids.

The formats are those of the `datasets` ecosystem: `prompt`/`completion` strings, conversational messages in either
column, a single `messages` conversation whose last assistant turn is the completion, or prompts alone. Other columns
travel along to the rewards.
"""

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhf.config import DataConfig
from rlhf.data.chat import Message, prompt_ids, text_ids
from rlhf.data.rows import for_each, parse_rows, require_plain
from rlhf.errors import UserError
from rlhf.parallel.launch import rank

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

RESERVED_COLUMNS = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")
"""The names of what rewards receive besides the columns."""


@dataclass(frozen=True)
class Example:
    """One row: the turns before the answer, the answer if there is one, and every other column.

    `columns` holds what a reward receives besides prompt and completion; the row's own completion is `reference`.
    Rewards get the turns of a conversation, and the text of a prompt that was given as a string.
    """

    messages: tuple[Message, ...]
    completion: str | None
    columns: dict[str, Any]
    origin: str
    is_conversation: bool = False

    @property
    def turns(self) -> tuple[Message, ...]:
        """The turns before the answer."""
        return self.messages

    @property
    def prompt(self) -> str:
        """The last user turn: what rewards, samples and tables show."""
        return self.messages[-1]["content"]


@dataclass(frozen=True)
class TokenizedExample:
    """An example with its prompt rendered by the chat template; completion_ids end with EOS."""

    example: Example
    prompt_ids: list[int]
    completion_ids: list[int] | None


def load_examples(path_or_name: str, split: str) -> list[Example]:
    """Read a .jsonl or .parquet file, the files of a folder, or a split of a hub dataset.

    Raises UserError that lists every bad row (up to 20) by file and row number, or says that there is none at all.
    """
    return parse_rows(path_or_name, split, parse_row)


def load_held_out(data: DataConfig) -> list[Example]:
    """The rows of data.eval, none where it is not set; raises UserError as `load_examples` does."""
    return load_examples(data.eval, data.eval_split) if data.eval else []


def warn_of_leak(train: list[Example], held_out: list[Example]) -> None:
    """Say on standard error, in one line, how many of the held-out prompts are trained on too, if any."""
    known = {_essence(example) for example in train}
    leaked = [example for example in held_out if _essence(example) in known]
    if leaked and rank() == 0:
        prompt = leaked[0].prompt
        print(
            f"warning: {len(leaked)} of {len(held_out)} held-out prompts are also in the training data, for example "
            f"{prompt if len(prompt) <= 60 else prompt[:60] + '...'!r} ({leaked[0].origin}); what is measured on them "
            "says nothing about new prompts",
            file=sys.stderr,
        )


def parse_row(row: Any, origin: str) -> Example:
    """One row in any of the accepted formats; raises UserError naming `origin` and the column at fault."""
    if not isinstance(row, dict):
        raise UserError(f"{origin}: the row is {type(row).__name__}; it must be an object with a prompt")
    require_plain(row, origin)
    row = dict(row)
    taken = next((name for name in RESERVED_COLUMNS if name in row), None)
    if taken:
        raise UserError(f"{origin}: a column is called {taken}, as is what rewards receive; rename it")
    conversation = row.pop("messages", None)
    completion: str | None
    is_conversation = conversation is not None or not isinstance(row.get("prompt"), str)
    if conversation is not None:
        messages = _messages(conversation, f"{origin}: messages")
        if messages[-1]["role"] != "assistant" or len(messages) < 2:
            raise UserError(f"{origin}: messages must end with an assistant turn that answers another one")
        messages, completion = messages[:-1], messages[-1]["content"]
    else:
        if row.get("prompt") in (None, "", []):
            raise UserError(f"{origin}: prompt is missing or empty; every row needs one")
        messages = _messages(row.pop("prompt"), f"{origin}: prompt")
        if not messages[-1]["content"]:
            raise UserError(f"{origin}: prompt is missing or empty; its last turn says nothing")
        completion = _completion(row.pop("completion", None), f"{origin}: completion")
    columns = {**row, "reference": row.get("reference", completion)}
    return Example(tuple(messages), completion, columns, origin, is_conversation)


def tokenize(
    examples: list[Example], tokenizer: "PreTrainedTokenizerFast", data: DataConfig, context_length: int
) -> list[TokenizedExample]:
    """Render prompts with the chat template and tokenize; completions get EOS.

    Rows whose completion is longer than data.max_completion_tokens are left out. Raises UserError that lists every
    prompt that is longer than data.max_prompt_tokens, and every row that does not fit the model's context.
    """
    system = [{"role": "system", "content": data.system_prompt}] if data.system_prompt else []
    prompts = prompt_ids(tokenizer, [[*system, *e.messages] for e in examples])
    completions = text_ids(tokenizer, [e.completion or "" for e in examples])

    def check(row: tuple[Example, list[int], list[int]]) -> TokenizedExample | None:
        example, prompt, completion = row
        ids = [*completion, tokenizer.eos_token_id] if example.completion is not None else None
        return _within_limits(TokenizedExample(example, prompt, ids), data, context_length)

    checked = for_each(zip(examples, prompts, completions, strict=True), check)
    kept = [row for row in checked if row is not None]
    if not kept:
        raise UserError(f"no row has a completion within data.max_completion_tokens {data.max_completion_tokens}")
    return kept


def _within_limits(row: TokenizedExample, data: DataConfig, context_length: int) -> TokenizedExample | None:
    """The row, or None if it is to be left out; raises UserError as `tokenize` does."""
    origin, n_prompt, n_completion = row.example.origin, len(row.prompt_ids), len(row.completion_ids or [])
    if n_prompt == 0:
        raise UserError(f"{origin}: the prompt has no tokens once it is in the chat template")
    if n_prompt > data.max_prompt_tokens:
        raise UserError(
            f"{origin}: the prompt has {n_prompt} tokens, more than data.max_prompt_tokens "
            f"{data.max_prompt_tokens}; shorten it or raise the limit"
        )
    if data.max_completion_tokens and n_completion > data.max_completion_tokens:
        return None
    if n_prompt + n_completion > context_length:
        raise UserError(
            f"{origin}: prompt and completion have {n_prompt + n_completion} tokens, "
            f"more than the model's context of {context_length}; data.max_completion_tokens leaves such rows out"
        )
    return row


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


def _essence(example: Example) -> tuple[tuple[str, str], ...]:
    """What makes two prompts the same: their turns, whatever white space surrounds them."""
    return tuple((turn["role"], turn["content"].strip()) for turn in example.messages)


def _messages(value: Any, where: str) -> list[Message]:
    """A plain string as one user turn, or a conversation checked turn by turn."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise UserError(f"{where} is {type(value).__name__}; it must be a string or a list of messages")
    for message in value:
        is_turn = isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))
        if not is_turn:
            raise UserError(f"{where}: each message must have a role and a string as content")
    return [{"role": message["role"], "content": message["content"]} for message in value]


def _completion(value: Any, where: str) -> str | None:
    if value is None:
        return None
    content = _messages(value, where)[-1]["content"]
    if not content:
        raise UserError(f"{where} is empty; leave the column out if there is none")
    return content
