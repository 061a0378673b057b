"""Files and folders that are there whole or not at all, whatever happens while they are written."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlhf.errors import UserError

UNFINISHED = ".unfinished"
"""Ending of what is being written. Always the same name: what a killed process leaves, the next one writes over."""


def write_atomically(file: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees either the old content or the new one.

    For one writer at a time. Raises UserError when the disk refuses.
    """
    unfinished = file.with_name(f".{file.name}{UNFINISHED}")
    with saving(file):
        unfinished.unlink(missing_ok=True)  # what lies there may be a link that leads elsewhere
        with open(unfinished, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, file)


def require_file(file: Path) -> None:
    """Raise UserError where a file could not be written later, before any work is done; its folder is made."""
    if file.is_dir():
        raise UserError(f"output is {str(file)!r}, which is a folder; name a file")
    with saving(file):
        file.parent.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A fresh folder to write into, which takes the place of `folder` once everything in it has been written.

    Raises UserError when the disk refuses.
    """
    staging = folder.with_name(f".{folder.name}{UNFINISHED}")
    shutil.rmtree(staging, ignore_errors=True)
    with saving(folder):
        try:
            staging.mkdir(parents=True)
            yield staging
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)
        staging.rename(folder)


@contextlib.contextmanager
def saving(place: Path) -> Iterator[None]:
    """Turn an error of the disk while `place` is written (full, read-only) into a UserError of one line."""
    try:
        yield
    except Exception as error:
        if not (isinstance(error, OSError) or type(error).__name__ == "SafetensorError"):  # a library for its name
            raise
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{place} cannot be written ({reason}); fix that and start the same command again") from error


def read_jsonl(file: Path) -> list[Any]:
    """The rows of a file with one JSON value per line."""
    with open(file, encoding="utf-8") as stream:  # splitlines() would also split at U+2028 inside a string
        return [json.loads(line) for line in stream]
