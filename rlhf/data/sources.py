"""Where rows come from: files of JSON, CSV and Parquet, folders of them, hub datasets."""

import csv
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from rlhf.data.rows import decode, for_each
from rlhf.errors import UserError, first_line
from rlhf.runs.hub import look_for_hub

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
UTF8_BOM, UTF16_BOMS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
LONGEST_CELL = 2**31 - 1  # of a CSV file, in characters

T = TypeVar("T")


def parse_rows(path_or_name: str, split: str, parse: Callable[[Any, str], T], subset: str | None = None) -> list[T]:
    """`parse(row, origin)` of every row of a file, a folder of files, or a split of a hub dataset (or of its subset).

    Raises UserError that lists every bad row (up to 20) by file and row number, or says that there is none at all.
    """
    parsed = for_each(read_rows(path_or_name, split, subset), lambda row: parse(decode(row[1], row[0]), row[0]))
    if not parsed:
        raise UserError(f"{path_or_name} is empty; it must hold at least one row")
    return parsed


def read_rows(path_or_name: str, split: str, subset: str | None = None) -> Iterator[tuple[str, Any]]:
    """('file row N', row) of each row, a line of JSON still as bytes."""
    path = Path(path_or_name)
    if path.is_dir():
        for file in files_of(path, split):
            yield from _read_file(file)
    elif is_on_hub(path_or_name):
        yield from _read_hub(path_or_name, split, subset)
    elif path.is_file() and path.suffix.lower() in SUFFIXES:
        yield from _read_file(path)
    elif path.is_file():
        raise UserError(f"{path_or_name!r} ends in {path.suffix or 'nothing'}; data files end in {', '.join(SUFFIXES)}")
    else:
        raise UserError(f"data file {path_or_name!r} does not exist; correct the path (relative to where you run)")


def is_on_hub(path_or_name: str) -> bool:
    """Whether this names a dataset of the hub, neither a folder nor a file."""
    path = Path(path_or_name)
    return not path.exists() and path.suffix.lower() not in SUFFIXES


def is_hidden(path: Path) -> bool:
    """Whether a file, or a folder above it, is one that programs keep for themselves, such as .ipynb_checkpoints."""
    return any(part.startswith(".") for part in path.parts)


def files_of(folder: Path, split: str) -> list[Path]:
    """The data files of a folder that have the split's name in theirs, or in that of a folder between.

    Nothing else in the folder is read, in particular no README that may name other files. Raises UserError for a link
    that leads out of the folder, and where there is no such file.
    """
    named = re.compile(rf"(^|[-_./ ]){re.escape(split)}($|[-_./ ])")
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not is_hidden(file.relative_to(folder))]
    inside = [file for file in files if file.suffix.lower() in SUFFIXES]
    found = [file for file in inside if named.search(file.relative_to(folder).as_posix())]
    for file in found:
        if not file.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{file} is a link that leads out of {folder}; copy the file into the folder")
    if not found:
        readable = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise UserError(f"{folder} holds no {readable} file of the split {split!r}; name a file instead")
    return found


def _read_file(file: Path) -> Iterator[tuple[str, Any]]:
    read = {".parquet": _parquet_rows, ".csv": _csv_rows, ".json": _json_rows}.get(file.suffix.lower(), _lines)
    for number, row in read(file):
        yield f"{file} row {number}", row


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """(line number, line) of each line that is not empty, without a byte-order mark."""
    with open(file, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            if number == 1:
                line = _without_bom(line, file)
            if line.strip():
                yield number, line


def _json_rows(file: Path) -> Iterator[tuple[int, Any]]:
    """The items of an array, the lines of any other file."""
    content = _without_bom(file.read_bytes(), file)
    if content.lstrip().startswith(b"["):
        rows = decode(content, str(file))
        yield from enumerate(rows, start=1)
    else:
        yield from _lines(file)


def _csv_rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The records below the line with the names of the columns; every value is text."""
    csv.field_size_limit(LONGEST_CELL)
    try:
        text = _without_bom(file.read_bytes(), file).decode("utf-8")
        records = csv.reader(io.StringIO(text, newline=""), strict=True)
        names = next(records, [])
        require_once(names, file)
        for number, record in enumerate((record for record in records if record), start=1):
            if len(record) != len(names):
                raise UserError(f"{file} row {number} has {len(record)} values, its head {len(names)} names")
            yield number, dict(zip(names, record, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as CSV in UTF-8: {error}") from error


def require_once(names: list[str], file: Path) -> None:
    """Raise UserError for a column that is there twice."""
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise UserError(f"{file}: the column {repeated!r} is there twice; keep one of them")


def _without_bom(start: bytes, file: Path) -> bytes:
    if start.startswith(UTF16_BOMS):
        raise UserError(f"{file} is in UTF-16; save it as UTF-8")
    return start.removeprefix(UTF8_BOM)


def _parquet_rows(file: Path) -> Iterator[tuple[int, Any]]:
    """By Arrow alone: the datasets library would decode what it takes for images too, by opening their paths."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        with pq.ParquetFile(file) as table:
            require_once(table.schema_arrow.names, file)
            rows = [row for batch in table.iter_batches() for row in batch.to_pylist()]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as Parquet: {first_line(error)}") from error
    yield from enumerate(rows, start=1)


def _read_hub(name: str, split: str, subset: str | None) -> Iterator[tuple[str, Any]]:
    import datasets

    look_for_hub()
    try:
        dataset = datasets.load_dataset(name, subset, split=split)
    except Exception as error:  # the library raises a dozen kinds
        part = f"subset {subset!r}, split {split!r}" if subset else f"split {split!r}"
        raise UserError(f"dataset {name!r} ({part}) cannot be loaded: {first_line(error)}") from error
    for number, row in enumerate(dataset, start=1):
        yield f"{name} row {number}", row
