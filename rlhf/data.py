"""Prompts and completions: from files and hub datasets to token ids.

The formats are those of the `datasets` ecosystem: `prompt`/`completion` strings, conversational messages in either
column, a single `messages` conversation whose last assistant turn is the completion, or prompts alone. Other columns
travel along to the rewards.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.config import DataConfig
from rlhf.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Message = dict[str, str]
MAX_REPORTED = 20  # problems listed before "and N more"


@dataclass(frozen=True)
class Example:
    """One row: the turns before the answer, the answer if there is one, and every other column.

    `columns` holds what a reward receives besides prompt and completion; the row's own completion is `reference`.
    """

    messages: tuple[Message, ...]
    completion: str | None
    columns: dict[str, Any]
    origin: str

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
    """Read a .jsonl or .parquet file, or a split of a hub dataset.

    Raises UserError that lists every bad row (up to 20) by file and row number, or says that there is none at all.
    """
    examples, problems = [], []
    for origin, row in read_rows(path_or_name, split):
        try:
            examples.append(parse_row(row, origin))
        except UserError as error:
            problems.append(str(error))
    if problems:
        more = f"\n  and {len(problems) - MAX_REPORTED} more" if len(problems) > MAX_REPORTED else ""
        listed = problems[0] if len(problems) == 1 else "\n  ".join(["bad rows:", *problems[:MAX_REPORTED]])
        raise UserError(listed + more)
    if not examples:
        raise UserError(f"{path_or_name} is empty; it must hold at least one row")
    return examples


def parse_row(row: Any, origin: str) -> Example:
    """One row in any of the accepted formats; raises UserError naming `origin` and the column at fault."""
    if not isinstance(row, dict):
        raise UserError(f"{origin}: the row is {type(row).__name__}; it must be an object with a prompt")
    row = dict(row)
    conversation = row.pop("messages", None)
    completion: str | None
    if conversation is not None:
        messages = _messages(conversation, f"{origin}: messages")
        if messages[-1]["role"] != "assistant" or len(messages) < 2:
            raise UserError(f"{origin}: messages must end with an assistant turn that answers another one")
        messages, completion = messages[:-1], messages[-1]["content"]
    else:
        if row.get("prompt") in (None, "", []):
            raise UserError(f"{origin}: prompt is missing or empty; every row needs one")
        messages = _messages(row.pop("prompt"), f"{origin}: prompt")
        completion = _completion(row.pop("completion", None), f"{origin}: completion")
    return Example(tuple(messages), completion, {**row, "reference": row.get("reference", completion)}, origin)


def tokenize(
    examples: list[Example], tokenizer: "PreTrainedTokenizerFast", data: DataConfig, context_length: int
) -> list[TokenizedExample]:
    """Render prompts with the chat template and tokenize; completions get EOS.

    Rows whose completion is longer than data.max_completion_tokens are left out. Raises UserError for a prompt that
    is longer than data.max_prompt_tokens, and for a row that does not fit the model's context.
    """
    system = [{"role": "system", "content": data.system_prompt}] if data.system_prompt else []
    rendered = [
        tokenizer.apply_chat_template([*system, *e.messages], tokenize=False, add_generation_prompt=True)
        for e in examples
    ]
    prompts = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    completions = tokenizer([e.completion or "" for e in examples], add_special_tokens=False)["input_ids"]
    kept = []
    for example, prompt_ids, ids in zip(examples, prompts, completions, strict=True):
        if len(prompt_ids) > data.max_prompt_tokens:
            raise UserError(
                f"{example.origin}: the prompt has {len(prompt_ids)} tokens, more than data.max_prompt_tokens "
                f"{data.max_prompt_tokens}; shorten it or raise the limit"
            )
        completion_ids = [*ids, tokenizer.eos_token_id] if example.completion is not None else None
        if data.max_completion_tokens and completion_ids and len(completion_ids) > data.max_completion_tokens:
            continue
        if len(prompt_ids) + len(completion_ids or []) > context_length:
            raise UserError(
                f"{example.origin}: prompt and completion have {len(prompt_ids) + len(completion_ids or [])} tokens, "
                f"more than the model's context of {context_length}; data.max_completion_tokens leaves such rows out"
            )
        kept.append(TokenizedExample(example, prompt_ids, completion_ids))
    if not kept:
        raise UserError(f"no row has a completion within data.max_completion_tokens {data.max_completion_tokens}")
    return kept


def check_fits(examples: list[TokenizedExample], max_response_tokens: int, context_length: int) -> None:
    """Raise UserError unless every prompt leaves room for a whole response."""
    for e in examples:
        if len(e.prompt_ids) + max_response_tokens > context_length:
            raise UserError(
                f"{e.example.origin}: prompt of {len(e.prompt_ids)} tokens + sampling.max_response_tokens "
                f"{max_response_tokens} is more than the model's context of {context_length}; lower the limit"
            )


def collate_columns(examples: list[Example]) -> dict[str, list[Any]]:
    """The columns of several rows as rewards receive them: name -> one item per row, None where a row lacks it."""
    names = dict.fromkeys(name for example in examples for name in example.columns)
    return {name: [example.columns.get(name) for example in examples] for name in names}


def read_jsonl(path: str | Path) -> Iterator[tuple[str, Any]]:
    """('file row N', object) for each non-empty line; raises UserError for one that is not UTF-8 JSON."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield f"{path} row {number}", json.loads(line)
                except ValueError as error:
                    raise UserError(f"{path} row {number}: not a JSON object in UTF-8 ({error})") from error


def read_rows(path_or_name: str, split: str) -> Iterator[tuple[str, Any]]:
    suffix = Path(path_or_name).suffix
    if suffix in (".jsonl", ".json", ".parquet"):
        if not Path(path_or_name).is_file():
            raise UserError(f"data file {path_or_name!r} does not exist; correct the path (relative to where you run)")
        if suffix != ".parquet":
            yield from read_jsonl(path_or_name)
            return
    import datasets

    try:
        if suffix == ".parquet":
            dataset = datasets.load_dataset("parquet", data_files=path_or_name, split="train")
        else:
            dataset = datasets.load_dataset(path_or_name, split=split)
    except Exception as error:  # the library raises a dozen kinds
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"dataset {path_or_name!r} (split {split!r}) cannot be loaded: {reason}") from error
    for number, row in enumerate(dataset, start=1):
        yield f"{path_or_name} row {number}", row


def _messages(value: Any, where: str) -> list[Message]:
    """A plain string as one user turn, or a conversation checked turn by turn."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise UserError(f"{where} is {type(value).__name__}; it must be a string or a list of messages")
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str) or "role" not in message:
            raise UserError(f"{where}: each message must have a role and a string as content")
    return [{"role": message["role"], "content": message["content"]} for message in value]


def _completion(value: Any, where: str) -> str | None:
    if value is None:
        return None
    content = _messages(value, where)[-1]["content"]
    if not content:
        raise UserError(f"{where} is empty; leave the column out if there is none")
    return content
