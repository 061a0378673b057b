"""Files of JSON lines that grow step by step, and go on where a checkpoint was taken."""

import json
from pathlib import Path
from typing import Any

from rlhf.errors import UserError
from rlhf.runs.files import saving, write_atomically


class RowFile:
    """Rows of a run in a file, each with its `step`; a row is on disk when `append` returns.

    Args:
        file: Where; `metrics.jsonl`, say.
        resumed_at: The step that the run goes on from: rows of later steps are removed, and what a crash has left at
            the end that is no row; the rest is kept. None starts afresh.

    Raises UserError for a line in the middle that cannot be read.
    """

    def __init__(self, file: Path, resumed_at: int | None) -> None:
        self.file = file
        write_atomically(file, "" if resumed_at is None else _rows_until(file, resumed_at))
        with saving(file):
            # Without a buffer: what a full disk has refused must not be tried again when the file is closed.
            self.stream = open(file, "ab", buffering=0)  # noqa: SIM115  closed by `close`

    def append(self, row: dict[str, Any]) -> None:
        """Add a row; raises UserError when the disk refuses."""
        line = memoryview((json.dumps(row, ensure_ascii=False) + "\n").encode())
        with saving(self.file):
            while line:
                line = line[self.stream.write(line) :]

    def close(self) -> None:
        """Nothing can be added any more."""
        self.stream.close()


def _rows_until(file: Path, step: int) -> str:
    """The rows of a file up to a step; none if there is no such file."""
    lines = file.read_bytes().splitlines(keepends=True) if file.is_file() else []
    steps = [_step_of(line) for line in lines]
    while steps and steps[-1] is None:
        steps.pop()
    if None in steps:
        raise UserError(f"{file}, line {steps.index(None) + 1} cannot be read; fix or remove that line")
    return b"".join(line for line, its in zip(lines, steps, strict=False) if its is not None and its <= step).decode()


def _step_of(line: bytes) -> int | None:
    """The step of a row; None for anything but a whole row."""
    try:
        return int(json.loads(line.decode())["step"]) if line.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError):
        return None
