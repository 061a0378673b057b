"""The moments at which something on the disk changes, and a SIGKILL at any one of them."""

import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.inject import INJECTIONS, wrap

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}


class WritePoints:
    """Counts what changes files under a folder while a function runs, and kills the process at one of these moments.

    Python announces every open, rename, removal and new folder by an audit event; fsync is wrapped, and so is the
    function of safetensors that writes tensors, which counts twice: before it begins, and half written.

    Args:
        root: Only changes in this folder count.
        log: A line for every moment, so that an undisturbed run tells how many there are.
        kill_at: Number of the moment to die at; 0 for none.
    """

    def __init__(self, root: str, log: str, kill_at: int) -> None:
        self.root, self.log, self.kill_at = root, Path(log), kill_at
        self.inside, self.count = False, 0

    def happens(self, what: str, path: Any) -> bool:
        """Write the moment down; whether it is the one to die at."""
        if not self.inside or not str(path).startswith(self.root):
            return False
        self.inside = False  # the log is a file too
        self.count += 1
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(f"{what} {os.path.relpath(path, self.root)}\n")
        self.inside = True
        return self.count == self.kill_at

    def moment(self, what: str, path: Any) -> None:
        if self.happens(what, path):
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            self.moment("open", arguments[0])
        elif event in CHANGES:
            self.moment(event.split(".")[1], arguments[0])

    def fsync(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def wrapped(descriptor: int) -> None:
            self.moment("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
            real(descriptor)

        return wrapped

    def serialize(self, real: Callable[..., None]) -> Callable[..., None]:
        def wrapped(tensors: Any, file: Any, *rest: Any, **more: Any) -> None:
            self.moment("write", file)
            real(tensors, file, *rest, **more)
            if self.happens("half of", file):
                os.truncate(file, os.path.getsize(file) // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        return wrapped

    def window(self, nth: int, to_the_end: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Count from the nth call of a function until it returns, or until the process ends."""
        calls = []

        def around(function: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(function)
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                calls.append(function)
                self.inside |= len(calls) == nth
                try:
                    return function(*args, **kwargs)
                finally:
                    self.inside &= to_the_end

            return wrapped

        return around


def die_at_write_point(during: str, nth: int, root: str, log: str, kill_at: int = 0, to_the_end: bool = False) -> None:
    """SIGKILL at one of the moments at which the disk changes, in the nth call of a function or from there on."""
    points = WritePoints(root, log, kill_at)
    wrap(during, points.window(nth, to_the_end))
    wrap("os:fsync", points.fsync)
    wrap("safetensors.torch:serialize_file", points.serialize)
    sys.addaudithook(points.audit)


INJECTIONS["die_at_write_point"] = die_at_write_point
