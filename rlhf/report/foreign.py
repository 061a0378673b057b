"""Run folders may be anybody's: what leads out of one is not read, and what no run has written is named."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.errors import UserError

if TYPE_CHECKING:
    import numpy as np

Row = dict[str, Any]
PLACES = ("", "ppo", "sft", "evaluation_base", "evaluation_sft", "evaluation_ppo")
READ = ("*.json", "*.jsonl", "*.yaml", "*.png", "rollouts", "rollouts/*", "rollouts/*/*")
"""In each of the places, what the report may look into."""
LARGEST = 2**63
"""No step or whole number that a run has counted comes near it."""


def refuse_links(folder: Path) -> None:
    """Raise UserError where something that the report reads is a link to a place outside the run's folder.

    The page is made to be sent around: a key file must not end up in it.
    """
    root = folder.resolve()
    for place in PLACES:
        inside = folder / place
        for path in [inside, *(found for pattern in READ for found in inside.glob(pattern))]:
            if not path.resolve().is_relative_to(root):
                raise UserError(
                    f"{path} is a link that leads out of the run's folder; the report reads nothing there: remove it"
                )


def is_number(value: Any) -> bool:
    """Whether this is a number, NaN and infinity among them."""
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST)


def is_step(value: Any) -> bool:
    """Whether this can be a place on the axis of a chart."""
    return is_number(value) and abs(value) < LARGEST


def is_text(value: Any) -> bool:
    """Whether this is a string."""
    return isinstance(value, str)


def is_mapping(value: Any) -> bool:
    """Whether this is a mapping, or nothing in the place of one."""
    return value is None or isinstance(value, dict)


def is_list(value: Any) -> bool:
    """Whether this is a list."""
    return isinstance(value, list)


Kinds = dict[str, Callable[[Any], bool]]
WORDS: dict[Callable[[Any], bool], str] = {
    is_number: "a number",
    is_step: "a finite number",
    is_text: "a text",
    is_list: "a list",
}
RESPONSE: Kinds = {"prompt": is_text, "response": is_text}
SAMPLE: Kinds = {"step": is_step, **RESPONSE}
STORED: Kinds = {**RESPONSE, "tokens": is_list}
WARNING: Kinds = {"step": is_step, "name": is_text, "message": is_text}


def require_rows(file: Path, rows: list[Row], needed: Kinds) -> list[Row]:
    """The rows, if each has what is needed; raises UserError with file, row and name otherwise."""
    for number, row in enumerate(rows, start=1):
        for name, fits in needed.items():
            if not fits(row.get(name)):
                shown = "missing" if name not in row else f"{row[name]!r:.40}"
                raise UserError(
                    f"{file}, row {number}: {name} is {shown}; it must be {WORDS[fits]}, as a run writes it"
                )
    return rows


def require_metrics(file: Path, rows: list[Row], is_toy: bool) -> list[Row]:
    """Rows of metrics: numbers under a step; what is null counts as not there. A toy's may hold lists and texts."""
    if is_toy:
        return rows
    kept = [{name: value for name, value in row.items() if value is not None} for row in rows]
    for number, row in enumerate(kept, start=1):
        wrong = next((name for name in row if not is_number(row[name])), None)
        if wrong is not None or not is_step(row.get("step")):
            name = wrong or "step"
            raise UserError(f"{file}, row {number}: {name} is {row.get(name)!r:.40}; it must be a finite number")
    return kept


def require_tensors(file: Path, tensors: "dict[str, np.ndarray]", rows: int, names: list[str]) -> None:
    """Raise UserError unless there is a row of tokens under each name for every response."""
    for name in names:
        found = tensors.get(name)
        if found is None:
            raise UserError(f"{file}: tensor {name!r} is missing; remove that folder")
        per_token = name not in ("has_eos", "scores")
        if len(found) < rows or found.ndim != 1 + per_token:
            raise UserError(f"{file}: tensor {name!r} has shape {found.shape} for {rows} responses; remove that folder")
