"""Which column holds what: the names that data sets use, and those that `data.columns` gives."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf.data.messages import turns_in_cell
from rlhf.errors import UserError

RESERVED_COLUMNS = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")
"""The names of what rewards receive besides the columns."""
PROMPT_NAMES = ("query", "question", "text")
"""What a prompt is called where no column is called prompt."""
CONVERSATIONS = ("prompt", "completion", "chosen", "rejected", "messages", "conversations")
"""Columns that may hold turns."""
SHOWN = 12


def with_known_names(
    row: dict[str, Any], columns: Mapping[str, str], origin: str, prompt_names: Sequence[str] = PROMPT_NAMES
) -> dict[str, Any]:
    """The row with its prompt, completion and messages under these names, whatever they were called.

    `columns` says under which name a column is found; a prompt that it names goes before messages. What has been read
    under another name stays there too, for rewards that ask for it. Raises UserError where a named column is missing,
    and where a prompt could be one of two.
    """
    for name, given in columns.items():
        if given not in row:
            raise UserError(f"{origin}: data.columns.{name} is {given!r}, but there is no such column{_there(row)}")
    row = {**row, **{name: row[given] for name, given in columns.items()}}
    row |= {name: turns_in_cell(row[name]) for name in CONVERSATIONS if name in row}
    taken = next((name for name in RESERVED_COLUMNS if name in row), None)
    if taken:
        raise UserError(f"{origin}: a column is called {taken}, as is what rewards receive; rename it")
    if row.get("prompt") is None and row.get("messages") is None:
        row = _with_prompt(row, origin, prompt_names)
    return row


def missing(name: str, needed: str, row: Mapping[str, Any], origin: str) -> UserError:
    """The error for a column that is not there or empty; says what the row has instead."""
    return UserError(f"{origin}: {name} is missing or empty; {needed}{_there(row)}")


def _with_prompt(row: dict[str, Any], origin: str, prompt_names: Sequence[str]) -> dict[str, Any]:
    """The row with the prompt, or the conversation, that it has under another name, if any."""
    if row.get("conversations") is not None:
        return {**row, "messages": _with_system(row["conversations"], row.get("system"))}
    found = [name for name in prompt_names if row.get(name) is not None]
    if len(found) > 1:
        raise UserError(
            f"{origin}: {' and '.join(found)} could each be the prompt; say which: data.columns: {{prompt: {found[0]}}}"
        )
    if not found:
        return row
    row = {**row, "prompt": row[found[0]]}
    answers = found == ["question"] and isinstance(row.get("answer"), str)
    return {**row, "completion": row["answer"]} if answers and row.get("completion") is None else row


def _with_system(turns: Any, system: Any) -> Any:
    """The turns behind what a column of its own says to the system, as rows of ShareGPT have it."""
    if not (isinstance(system, str) and system and isinstance(turns, list) and turns and isinstance(turns[0], dict)):
        return turns
    role, said = ("from", "value") if "from" in turns[0] else ("role", "content")
    return turns if turns[0].get(role) == "system" else [{role: "system", said: system}, *turns]


def _there(row: Mapping[str, Any]) -> str:
    names = [str(name) for name in row]
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f" (the row has {', '.join(names[:SHOWN])}{more}; data.columns says what a column is called)"
