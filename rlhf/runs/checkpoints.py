"""Checkpoints that are there whole or not at all: staged, hashed, renamed, verified on the way back, pruned."""

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rlhf.config.secrets import mask_secrets
from rlhf.errors import UserError
from rlhf.runs.folder import CONFIG_FILE, difference, essence, identity, with_model_here, written_before

CHECKPOINTS_FOLDER, MANIFEST = "checkpoints", "manifest.json"
STAGING, REPLACED = ".staging-", ".replaced"
OTHER_RUN = "it is another run's"
NAME = re.compile(r"checkpoint-(\d{6,})(\.replaced)?")


class CheckpointManager:
    """The checkpoints of one run, as folders checkpoint-000012 named by their step.

    Only `save` and `clear` change anything on disk, so several processes may look for the latest checkpoint while one
    of them writes.

    Args:
        folder: Where they lie; nothing else belongs there.
        keep: How many intact checkpoints stay on disk.
        config: The run's configuration. What of it makes the run the one it is stands in the manifests, and checkpoints
            with anything else there are not used. None uses any.
    """

    def __init__(self, folder: Path, keep: int = 2, config: Any = None) -> None:
        self.folder, self.keep, self.config = folder, keep, config
        self.identity = None if config is None else identity(config)

    def save(self, step: int, write: Callable[[Path], None]) -> Path:
        """Let `write` fill a folder, and make it the checkpoint of this step once all of it is on the disk.

        Killed at any moment, this leaves either the new checkpoint or the earlier ones to `latest`. A checkpoint of
        the same step is replaced. Raises UserError when the disk refuses; earlier checkpoints are then untouched.
        """
        target = self.folder / f"checkpoint-{step:06d}"
        staging = self.folder / f"{STAGING}{target.name}"
        try:
            self._remove_leftovers()
            staging.mkdir(parents=True)
            write(staging)
            seal(staging, step, self.identity)
            self._put_in_place(staging, target)
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"the checkpoint of step {step} cannot be written to {target} ({reason}); earlier checkpoints are"
                " untouched: fix that and start the same command again"
            ) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        self._prune(target)
        return target

    def latest(self) -> Path | None:
        """The newest checkpoint that is intact, or None; every newer one is named on stderr with its damage.

        Raises UserError where the only ones are of a run with other settings.
        """
        damaged = []
        found = None
        for path in self._newest_first():
            reason = self._unusable(path)
            if reason is None:
                found = path
                break
            damaged.append(f"checkpoint {path} is damaged ({reason})")
        others = [line for line in damaged if OTHER_RUN in line]
        if others and found is None:  # it would begin anew, and put its own in the place of what is whole
            raise UserError(f"{others[0]}; put {CONFIG_FILE} back as it was, or choose another output_dir")
        instead = f"using {found.name} instead" if found else "no other one is left"
        for line in damaged:
            print(f"{line}; {instead}", file=sys.stderr, flush=True)
        return found

    @staticmethod
    def step_of(checkpoint: Path) -> int:
        """The step after which a checkpoint was saved, from the name of its folder."""
        match = NAME.fullmatch(checkpoint.name)
        if match is None:
            raise ValueError(f"{checkpoint} is not the folder of a checkpoint")
        return int(match[1])

    def clear(self) -> None:
        """Remove all checkpoints, and the folder with them: the run is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _newest_first(self) -> list[Path]:
        """The folders that are named like checkpoints; of two with the same step, the replaced one comes last."""
        found = self.folder.iterdir() if self.folder.is_dir() else []
        named = [path for path in found if NAME.fullmatch(path.name)]
        return sorted(named, key=lambda path: (-self.step_of(path), path.name))

    def _unusable(self, checkpoint: Path) -> str | None:
        """What is wrong with a checkpoint, which may be whole and another run's; None if nothing is."""
        damaged = damage(checkpoint)
        if damaged or self.identity is None:
            return damaged
        theirs = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8")).get("run")
        if not theirs:
            return None
        written = mask_secrets(written_before(type(self.config), theirs))
        written = with_model_here(written, self.identity, self.folder.parent)
        changed = difference(essence(written), self.identity)
        return f"{OTHER_RUN}: {changed} here" if changed else None

    def _put_in_place(self, staging: Path, target: Path) -> None:
        """Rename the staged folder; one of the same step stays in reach of `latest` until then."""
        if target.exists():
            aside = target.with_name(target.name + REPLACED)
            shutil.rmtree(aside, ignore_errors=True)
            target.rename(aside)
        staging.rename(target)
        _fsync(self.folder)

    def _prune(self, newest: Path) -> None:
        """Keep the checkpoint just saved and the intact ones before it, up to `keep`; remove all others.

        One of a later step is damaged, or belongs to a course that the run did not take when it was resumed.
        """
        kept = 1
        for path in self._newest_first():
            earlier = self.step_of(path) < self.step_of(newest)
            if path != newest and earlier and kept < self.keep and self._unusable(path) is None:
                kept += 1
            elif path != newest:
                shutil.rmtree(path, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        """Remove what a process that was killed while saving has left."""
        for path in self.folder.glob(f"{STAGING}*"):
            shutil.rmtree(path)


def seal(folder: Path, step: int, identity: dict[str, Any] | None = None) -> None:
    """Flush every file to the disk, then a manifest of their sizes and SHA-256, which makes the checkpoint complete."""
    contents = sorted(folder.rglob("*"))
    for path in contents:
        _fsync(path)
    manifest = folder / MANIFEST
    content = _manifest(folder, step) | ({} if identity is None else {"run": identity})
    manifest.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for path in (manifest, folder):
        _fsync(path)


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, measured by its manifest; None if every bit is as it was written."""
    try:
        recorded = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        found = _manifest(checkpoint, CheckpointManager.step_of(checkpoint))
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError) as error:
        return f"{MANIFEST} or a file cannot be read: {error}"
    if isinstance(recorded, dict):
        recorded.pop("run", None)  # whose it is does not say whether it is whole
    return None if recorded == found else _difference(recorded, found)


def _difference(recorded: Any, found: dict[str, Any]) -> str:
    """The first thing in which a manifest and the files that are there differ."""
    if not isinstance(recorded, dict) or not isinstance(recorded.get("files"), dict):
        return f"{MANIFEST} is not a manifest"
    for name in sorted(recorded["files"].keys() | found["files"].keys()):
        before, now = recorded["files"].get(name), found["files"].get(name)
        if now is None:
            return f"{name} is missing"
        if before is None:
            return f"{name} is not in the manifest"
        if before != now:
            return f"{name} is not the one in the manifest: it has {now['bytes']} bytes, SHA-256 {now['sha256']}"
    return f"{MANIFEST} does not belong to step {found['step']}"


def _manifest(folder: Path, step: int) -> dict[str, Any]:
    """The step, and size and SHA-256 of every file but the manifest."""
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    files.pop(MANIFEST, None)
    return {"step": step, "files": {name: _describe(path) for name, path in files.items()}}


def _describe(file: Path) -> dict[str, Any]:
    with open(file, "rb") as stream:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _fsync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
