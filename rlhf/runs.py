"""Run folders: what belongs to one run, and whether it is finished."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from rlhf.errors import UserError

CONFIG_FILE, VERSIONS_FILE, DONE_FILE = "config.yaml", "versions.json", "done.json"
BESIDE_THE_POINT = ("output_dir", "checkpoint", "inspect", "tracking", "push_to_hub")
"""Settings that may change between two starts of a run: what it computes does not depend on them."""
PACKAGES = ("rlhf", "torch", "transformers", "trl", "peft", "datasets", "accelerate")
SECRET_KEY = re.compile(r"token$|secret|password|api_?key|access_?key|private_?key|credential|authorization", re.I)
MASK = "***"


def open_run(output_dir: str, config: Any) -> Path:
    """Create or reopen the folder of a run; its resolved config, without secrets, goes into config.yaml.

    What it is begun with, libraries and code, goes into versions.json. Reopening with the same config (but for
    BESIDE_THE_POINT) is harmless, also after the folder was moved. Raises UserError, and touches nothing, when the
    folder holds a run with another config or files of somebody else's.
    """
    folder = Path(output_dir)
    resolved = mask_secrets({key: value for key, value in as_plain(config).items() if key != "output_dir"})
    file = folder / CONFIG_FILE
    if file.is_file():
        before = yaml.safe_load(file.read_text())
        changed = difference(essence(before), essence(resolved))
        if changed:
            raise UserError(
                f"{folder} already holds a different run ({changed}); choose another output_dir or remove that folder"
            )
        return folder
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no run of ours; choose another output_dir")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(file, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
    write_atomically(folder / VERSIONS_FILE, json.dumps(versions(), indent=2) + "\n")
    return folder


def essence(config: Any) -> Any:
    """A plain config without what is beside the point, at any depth."""
    if isinstance(config, dict):
        return {key: essence(value) for key, value in config.items() if key not in BESIDE_THE_POINT}
    return config


def is_done(folder: Path) -> bool:
    """Whether the run in this folder came to its end."""
    return (folder / DONE_FILE).is_file()


def mark_done(folder: Path, seconds: float) -> None:
    """Record that the run is complete, with the versions that it ended with."""
    done = {"seconds": round(seconds, 1), "versions": versions()}
    write_atomically(folder / DONE_FILE, json.dumps(done, indent=2) + "\n")


def versions() -> dict[str, str]:
    """Versions of Python, the libraries and this package, and the commit of its code where that is a git checkout."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    found["python"] = platform.python_version()
    commit = git_commit(Path(__file__).resolve().parents[1])
    return found | ({"commit": commit} if commit else {})


def git_commit(checkout: Path) -> str | None:
    """The commit of a checkout, with -dirty behind it if files differ from it; None where there is none, or no git."""
    if not (checkout / ".git").exists():  # else git would look further up, and find somebody else's repository
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def mask_secrets(config: Any) -> Any:
    """A copy of a config with `***` for the value of every key that looks like a secret's, and for every string with
    the value of an environment variable that does."""
    known = [value for name, value in os.environ.items() if SECRET_KEY.search(name) and len(value) >= 8]

    def masked(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: MASK if SECRET_KEY.search(str(key)) and x else masked(x) for key, x in item.items()}
        if isinstance(item, list):
            return [masked(x) for x in item]
        return MASK if isinstance(item, str) and any(value in item for value in known) else item

    return masked(config)


def as_plain(config: Any) -> Any:
    """A config dataclass as dictionaries, lists and scalars, as YAML would read it back."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def difference(before: Any, now: Any, path: str = "") -> str:
    """The first key in which two configs differ, with both values; empty if they are equal.

    A key that one of them lacks counts as None: an option that came later does not make an old run a different one.
    A secret that was masked equals any other.
    """
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        before, now = dict(enumerate(before)), dict(enumerate(now))
    if isinstance(before, dict) and isinstance(now, dict):
        for key in now | before:
            found = difference(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
            if found:
                return found
        return ""
    return "" if before == now or MASK in (before, now) else f"{path} was {before!r} and is {now!r}"


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
