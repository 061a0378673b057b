"""What is wrong with rows, all of it at once: invalid JSON, values that JSON cannot hold."""

import json
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from rlhf.errors import UserError

MAX_REPORTED = 20  # problems listed before "and N more"

S = TypeVar("S")
T = TypeVar("T")


def for_each(items: Iterable[S], action: Callable[[S], T]) -> list[T]:
    """The results of `action`; raises one UserError with the messages of all that it raised (up to 20 of them)."""
    results, problems = [], []
    for item in items:
        try:
            results.append(action(item))
        except UserError as error:
            problems.append(str(error))
    if problems:
        more = f"\n  and {len(problems) - MAX_REPORTED} more" if len(problems) > MAX_REPORTED else ""
        listed = problems[0] if len(problems) == 1 else "\n  ".join(["bad rows:", *problems[:MAX_REPORTED]])
        raise UserError(listed + more)
    return results


def decode(row: Any, origin: str) -> Any:
    """A line of bytes as its JSON value, anything else as it is; raises UserError for what is not strict JSON."""
    if not isinstance(row, bytes):
        return row
    try:
        return json.loads(
            row.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_no_number, parse_float=_finite
        )
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{origin}: not a JSON object in UTF-8 ({error})") from error
    except ValueError as error:
        raise UserError(f"{origin}: {error}") from error
    except RecursionError as error:
        raise UserError(f"{origin}: its values are nested too deeply") from error


def require_plain(row: Any, origin: str) -> None:
    """Raise UserError for a row with what JSON in UTF-8 cannot hold: rows are written down again, with their scores."""
    try:
        _require_plain(row, "the row")
    except ValueError as error:
        raise UserError(f"{origin}: {error}") from error


def _require_plain(value: Any, where: str) -> None:
    if isinstance(value, str):
        half = next((character for character in value if "\ud800" <= character <= "\udfff"), None)
        if half:
            raise ValueError(f"{where} holds \\u{ord(half):04x}, half of a surrogate pair and no character; remove it")
    elif isinstance(value, dict):
        for name, item in value.items():
            _require_plain(name, f"the name of a column in {where}")
            _require_plain(item, name if where == "the row" else f"{where}.{name}")
    elif isinstance(value, list):
        for item in value:
            _require_plain(item, where)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}; it must be a finite number")
    elif value is not None and not isinstance(value, int):
        raise ValueError(f"{where} is {type(value).__name__}; it must be text, a number, true or false, or null")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in pairs:
        if name in row:
            raise ValueError(f"the key {name!r} is there twice; keep one of them")
        row[name] = value
    return row


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON; use null or a finite number")


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text[:20]} is too large for a number")
    return float(text)
