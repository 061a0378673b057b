"""One row of a data set: what it may look like, and the example that it becomes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlhf.data.chat import Tools
from rlhf.data.columns import PROMPT_NAMES, missing, with_known_names
from rlhf.data.messages import Message, Prompt, final_answer, read_tools, read_turns
from rlhf.data.rows import require_plain
from rlhf.errors import UserError


@dataclass(frozen=True)
class Example:
    """One row: what stands before the answer, the answer if there is one, and every other column.

    A prompt that is a string is text, a list of messages is a conversation. Once it is tokenized, an example holds
    what the model saw: a system prompt is among its turns, and a text that was put as a user turn is a conversation.

    Attributes:
        given: The text, or the turns; an empty text where all of a text is the answer.
        completion: The answer.
        columns: What a reward receives besides prompt and completion; the row's own completion is `reference`.
        origin: File and row.
    """

    given: Prompt
    completion: str | None
    columns: dict[str, Any]
    origin: str

    @property
    def is_conversation(self) -> bool:
        """Whether the prompt consists of turns; else it is text."""
        return not isinstance(self.given, str)

    @property
    def turns(self) -> tuple[Message, ...]:
        """The turns of a conversation before its answer, the system turn too; none of a text."""
        return () if isinstance(self.given, str) else self.given

    @property
    def prompt(self) -> str:
        """What to show of the prompt: a text as a whole, of a conversation the last user turn."""
        if isinstance(self.given, str):
            return self.given
        users = (turn for turn in reversed(self.given) if turn["role"] == "user")
        return str(next(users, self.given[-1])["content"])

    @property
    def tools(self) -> Tools:
        """The column `tools` of a conversation, as its chat template takes it."""
        return self.columns.get("tools") if self.is_conversation else None


def parse_row(
    row: Any,
    origin: str,
    columns: Mapping[str, str] | None = None,
    text_is_answer: bool = False,
    may_be_empty: bool = False,
) -> Example:
    """One row in any of the accepted formats; raises UserError naming `origin` and the column at fault.

    Args:
        row: An object with the columns.
        origin: File and row.
        columns: Other names of columns, as data.columns has them.
        text_is_answer: A column `text` alone is learned from its first token (in SFT), and is no prompt.
        may_be_empty: A completion may be: what a model said that ended at once.
    """
    if not isinstance(row, dict):
        raise UserError(f"{origin}: the row is {type(row).__name__}; it must be an object with a prompt")
    require_plain(row, origin)
    text_is_answer = text_is_answer and row.get("completion") is None and "completion" not in (columns or {})
    names = [name for name in PROMPT_NAMES if name != "text" or not text_is_answer]
    named = with_known_names(row, columns or {}, origin, names)
    if named.get("messages") is not None and ("prompt" not in (columns or {}) or "messages" in (columns or {})):
        conversation = named.pop("messages")
        turns = read_turns(conversation, f"{origin}: messages")
        if len(turns) < 2 or turns[-1]["role"] != "assistant":
            raise UserError(f"{origin}: messages must end with an assistant turn that answers another one")
        answer = final_answer(turns, f"{origin}: messages")
        return _example(tuple(turns[:-1]), answer, named, origin)
    prompt, completion = named.pop("prompt", None), named.pop("completion", None)
    is_empty = may_be_empty and completion == ""
    if prompt is None and text_is_answer and named.get("text"):
        return _example("", _text(named["text"], f"{origin}: text"), named, origin)
    if prompt in (None, "", []):
        raise missing("prompt", "every row needs one", row, origin)
    asked, said = _prompt_and_completion(prompt, None if is_empty else completion, origin)
    return _example(asked, "" if is_empty else said, named, origin)


def _example(given: Prompt, completion: str | None, row: dict[str, Any], origin: str) -> Example:
    reference = row.get("reference", completion)
    columns = {**row, "reference": None if reference == "" else reference}  # an empty cell of a table is none
    if not isinstance(given, str) and columns.get("tools") is not None:
        columns["tools"] = read_tools(columns["tools"], f"{origin}: tools")
    return Example(given, completion, columns, origin)


def _prompt_and_completion(prompt: Any, completion: Any, origin: str) -> tuple[Prompt, str | None]:
    """Both are text, or one of them is a list of messages, and the row a conversation."""
    answer = _answer(completion, f"{origin}: completion")
    if isinstance(prompt, str):
        return ({"role": "user", "content": prompt},) if isinstance(completion, list) else prompt, answer
    turns = read_turns(prompt, f"{origin}: prompt")
    last = turns[-1]
    if last["role"] == "assistant" and "tool_calls" in last:
        raise UserError(f"{origin}: prompt ends with tool calls; the turn of the tool must follow")
    if not last["content"]:
        raise UserError(f"{origin}: prompt is missing or empty; its last turn says nothing")
    return tuple(turns), answer


def _answer(value: Any, where: str) -> str | None:
    """The text of a completion, which may be one assistant turn."""
    if not isinstance(value, list):
        return None if value is None else _text(value, where)
    turns = read_turns(value, where)
    if len(turns) > 1:
        raise UserError(
            f"{where} has {len(turns)} turns; it must be one assistant turn: the turns before it belong into the prompt"
        )
    return final_answer(turns, where)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where} is {type(value).__name__}; it must be a string or a list of messages")
    if not value:
        raise UserError(f"{where} is empty; leave the column out if there is none")
    return value
