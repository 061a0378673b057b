"""Run folders: what belongs to one run, and whether it is finished."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from rlhf.errors import UserError

CONFIG_FILE, DONE_FILE = "config.yaml", "done.json"
LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate")


def open_run(output_dir: str, config: Any) -> Path:
    """Create or reopen the folder of a run; its resolved config goes into config.yaml.

    Reopening with the same config is harmless, also after the folder was moved. Raises UserError, and touches
    nothing, when the folder holds a run with another config or files of somebody else's.
    """
    folder = Path(output_dir)
    resolved = {key: value for key, value in as_plain(config).items() if key != "output_dir"}
    file = folder / CONFIG_FILE
    if file.is_file():
        before = yaml.safe_load(file.read_text())
        changed = difference(before, resolved)
        if changed:
            raise UserError(
                f"{folder} already holds a different run ({changed}); choose another output_dir or remove that folder"
            )
        return folder
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no run of ours; choose another output_dir")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(file, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
    return folder


def is_done(folder: Path) -> bool:
    """Whether the run in this folder came to its end."""
    return (folder / DONE_FILE).is_file()


def mark_done(folder: Path, seconds: float) -> None:
    """Record that the run is complete, with the library versions that made it."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    versions["python"] = platform.python_version()
    write_atomically(
        folder / DONE_FILE, json.dumps({"seconds": round(seconds, 1), "versions": versions}, indent=2) + "\n"
    )


def as_plain(config: Any) -> Any:
    """A config dataclass as dictionaries, lists and scalars, as YAML would read it back."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def difference(before: Any, now: Any, path: str = "") -> str:
    """The first key in which two configs differ, with both values; empty if they are equal.

    A key that one of them lacks counts as None: an option that came later does not make an old run a different one.
    """
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        before, now = dict(enumerate(before)), dict(enumerate(now))
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*now, *(k for k in before if k not in now)]:
            found = difference(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
            if found:
                return found
        return ""
    return "" if before == now else f"{path} was {before!r} and is {now!r}"


def write_atomically(file: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees either the old content or the new one."""
    staged = file.with_name(f".{file.name}.{os.getpid()}")
    with open(staged, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(staged, file)


def read_jsonl(file: Path) -> list[Any]:
    """The rows of a file with one JSON value per line."""
    with open(file, encoding="utf-8") as stream:  # splitlines() would also split at U+2028 inside a string
        return [json.loads(line) for line in stream]


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A fresh folder to write into, which takes the place of `folder` once everything in it has been written."""
    staging = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    staging.rename(folder)
