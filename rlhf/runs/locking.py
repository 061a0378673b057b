"""One process at a time in a run folder: two that write the same metrics and checkpoints would spoil both runs."""

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import TypeVar

from rlhf.config import EvaluateConfig, PipelineConfig
from rlhf.errors import UserError
from rlhf.runs.folder import LOCK_FILE, belongs_to_others

Config = TypeVar("Config", EvaluateConfig, PipelineConfig)
Result = TypeVar("Result")
NO_LOCKS_HERE = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


@contextmanager
def locked(output_dir: str) -> Iterator[None]:
    """Keep other processes out of a run folder, which is created, until the end of the block or of this process.

    The lock is the kernel's (flock): a process that was killed holds none. Raises UserError, naming the folder and the
    other process, where there is one. A folder that cannot be written, or holds other people's files, is left alone:
    `open_run` has something to say about it. Where the file system has no locks, a line on standard error says so.
    """
    from filelock import FileLock, Timeout

    folder = Path(output_dir)
    if belongs_to_others(folder):
        yield
        return
    file = folder / LOCK_FILE
    lock = FileLock(file, blocking=False, fallback_to_soft=False, on_acquired=_sign)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{folder} is in use by {_signature(file)}; wait for that run, stop it, or choose another output_dir"
        ) from None
    except OSError as error:
        if error.errno in NO_LOCKS_HERE:
            print(f"{folder} is on a disk without locks; let no other run write there", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):  # a disk that has become read-only
                file.unlink(missing_ok=True)  # before the release: what another process locks then is a new file
            lock.release()


def alone_in_its_folder(stage: Callable[[Config], Result]) -> Callable[[Config], Result]:
    """The stage, under the lock of its run folder."""

    @wraps(stage)
    def run(config: Config) -> Result:
        with locked(config.output_dir):
            return stage(config)

    return run


def _sign(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())


def _signature(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8") or "another process"
    except OSError:  # it has just finished
        return "another process"
