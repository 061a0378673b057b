"""Rows of data files and hub datasets: where they come from, and what is wrong with them, all of it at once."""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from rlhf.errors import UserError, first_line

MAX_REPORTED = 20  # problems listed before "and N more"
SUFFIXES = (".jsonl", ".json", ".parquet")
UTF8_BOM, UTF16_BOMS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")

S = TypeVar("S")
T = TypeVar("T")


def parse_rows(path_or_name: str, split: str, parse: Callable[[Any, str], T]) -> list[T]:
    """`parse(row, origin)` of every row of a file, a folder of files, or a split of a hub dataset.

    Raises UserError that lists every bad row (up to 20) by file and row number, or says that there is none at all.
    """
    parsed = for_each(read_rows(path_or_name, split), lambda row: parse(decode(row[1], row[0]), row[0]))
    if not parsed:
        raise UserError(f"{path_or_name} is empty; it must hold at least one row")
    return parsed


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


def read_rows(path_or_name: str, split: str) -> Iterator[tuple[str, Any]]:
    """('file row N', row) of each row, a line of JSON still as bytes."""
    path = Path(path_or_name)
    if path.is_dir():
        for file in files_of(path, split):
            yield from _read_file(file)
    elif path.suffix in SUFFIXES:
        if not path.is_file():
            raise UserError(f"data file {path_or_name!r} does not exist; correct the path (relative to where you run)")
        yield from _read_file(path)
    else:
        yield from _read_hub(path_or_name, split)


def files_of(folder: Path, split: str) -> list[Path]:
    """The data files of a folder that have the split's name in theirs, or in that of a folder between.

    Nothing else in the folder is read, in particular no README that may name other files. Raises UserError for a link
    that leads out of the folder, and where there is no such file.
    """
    named = re.compile(rf"(^|[-_./ ]){re.escape(split)}($|[-_./ ])")
    inside = [file for file in sorted(folder.rglob("*")) if file.suffix in SUFFIXES and file.is_file()]
    found = [file for file in inside if named.search(file.relative_to(folder).as_posix())]
    for file in found:
        if not file.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{file} is a link that leads out of {folder}; copy the file into the folder")
    if not found:
        raise UserError(f"{folder} holds no .jsonl or .parquet file of the split {split!r}; name a file instead")
    return found


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


def _read_file(file: Path) -> Iterator[tuple[str, Any]]:
    rows = _parquet_rows(file) if file.suffix == ".parquet" else _lines(file)
    for number, row in rows:
        yield f"{file} row {number}", row


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """(line number, line) of each line that is not empty, without a byte-order mark."""
    with open(file, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            if number == 1:
                if line.startswith(UTF16_BOMS):
                    raise UserError(f"{file} is in UTF-16; save it as UTF-8")
                line = line.removeprefix(UTF8_BOM)
            if line.strip():
                yield number, line


def _parquet_rows(file: Path) -> Iterator[tuple[int, Any]]:
    """By Arrow alone: the datasets library would decode what it takes for images too, by opening their paths."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        with pq.ParquetFile(file) as table:
            rows = [row for batch in table.iter_batches() for row in batch.to_pylist()]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as Parquet: {first_line(error)}") from error
    yield from enumerate(rows, start=1)


def _read_hub(name: str, split: str) -> Iterator[tuple[str, Any]]:
    import datasets

    try:
        dataset = datasets.load_dataset(name, split=split)
    except Exception as error:  # the library raises a dozen kinds
        raise UserError(f"dataset {name!r} (split {split!r}) cannot be loaded: {first_line(error)}") from error
    for number, row in enumerate(dataset, start=1):
        yield f"{name} row {number}", row


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
