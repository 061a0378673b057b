"""Turns of conversations in the forms in which data sets have them: OpenAI's, ShareGPT's, Anthropic's transcripts."""

import ast
import json
import re
from typing import Any

from rlhf.errors import UserError

Message = dict[str, Any]
"""A turn: `role`, `content` (a string), and whatever else the chat template reads (`tool_calls`, say)."""
Prompt = str | tuple[Message, ...]
"""What stands before an answer: a text, or the turns of a conversation."""

SHAREGPT_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant",
    "assistant": "assistant", "system": "system", "tool": "tool", "observation": "tool",
}  # fmt: skip
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
SPEAKER = re.compile(r"\n\n(Human|Assistant):")


def read_turns(value: Any, where: str) -> list[Message]:
    """The turns of a list of messages, keys without a value left out.

    Raises UserError, beginning with `where`, for anything but turns with a role and a string as content (a turn of
    tool calls needs none).
    """
    if not isinstance(value, list) or not value:
        raise UserError(f"{where} is {type(value).__name__}; it must be a string or a list of messages")
    return [_turn(message, where) for message in value]


def turns_in_cell(value: Any) -> Any:
    """The turns that the text of a table's cell spells out, in JSON or as Python prints them; else the value itself."""
    if not isinstance(value, str) or not value.lstrip().startswith("[{"):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            turns = read(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in turns):
            return turns
    return value


def final_answer(turns: list[Message], where: str) -> str:
    """The content of the last turn, which is trained on.

    Raises UserError unless that is an assistant turn that says something, and nothing besides its content.
    """
    last = turns[-1]
    if last["role"] != "assistant":
        raise UserError(f"{where} ends with a turn of the role {last['role']!r}; it must end with an assistant turn")
    more = ", ".join(name for name in last if name not in ("role", "content"))
    if more:
        raise UserError(
            f"{where} ends with an assistant turn that has {more}; only content can be trained on: write it as text "
            "into the content, or leave the turn out"
        )
    if not last["content"]:
        raise UserError(f"{where} ends with an assistant turn that says nothing; leave the row out")
    return str(last["content"])


def read_tools(value: Any, where: str) -> list[dict[str, Any]]:
    """Tools as a list of JSON schemas, which may be JSON text; raises UserError for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UserError(f"{where} is text, but not JSON ({error})") from error
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise UserError(f"{where} must be a list of JSON schemas, an object each")
    return [without_nulls(tool) for tool in value]


def without_nulls(value: Any) -> Any:
    """The value without the keys whose value is null: Parquet fills every object up to the keys of all of them."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def transcript_turns(text: str) -> tuple[Message, ...] | None:
    """The turns of a text like Anthropic's HH ("\\n\\nHuman: ...\\n\\nAssistant: ..."); None for any other text.

    An empty last turn of the assistant is where the answer belongs, and no turn.
    """
    if not text.startswith(HUMAN):
        return None
    parts = SPEAKER.split(text)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = [
        {"role": roles[speaker], "content": said.strip()} for speaker, said in zip(parts[::2], parts[1::2], strict=True)
    ]
    return tuple(turns[:-1] if turns[-1] == {"role": "assistant", "content": ""} else turns)


def _turn(message: Any, where: str) -> Message:
    if isinstance(message, dict) and "from" in message and "role" not in message:
        message = _from_sharegpt(message, where)
    message = without_nulls(message)
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise UserError(f"{where}: each message must have a role and a string as content")
    if message.get("tool_calls"):
        calls = message["tool_calls"]
        if not isinstance(calls, list):
            raise UserError(f"{where}: tool_calls is {type(calls).__name__}; it must be a list of calls")
        message = {"content": "", **message, "tool_calls": [_with_arguments(call, where) for call in calls]}
    if not isinstance(message.get("content"), str):
        raise UserError(f"{where}: each message must have a role and a string as content")
    more = {name: value for name, value in message.items() if name not in ("role", "content") and value not in ([], "")}
    return {"role": message["role"], "content": message["content"], **more}


def _with_arguments(call: Any, where: str) -> Any:
    """The call with arguments that are an object: OpenAI writes them as JSON text, templates write the JSON."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except ValueError as error:
        raise UserError(f"{where}: the arguments of a tool call are text, but not JSON ({error})") from error
    return {**call, "function": {**function, "arguments": arguments}}


def _from_sharegpt(message: dict[str, Any], where: str) -> Message:
    speaker, rest = message["from"], {name: x for name, x in message.items() if name not in ("from", "value")}
    if speaker not in SHAREGPT_ROLES:
        raise UserError(f"{where}: a turn is from {speaker!r}; known are {', '.join(SHAREGPT_ROLES)}")
    return {"role": SHAREGPT_ROLES[speaker], "content": message.get("value"), **rest}
