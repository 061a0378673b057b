"""What is changed inside a process before `rlhf` starts in it, so that a fault strikes at a known moment."""

import functools
import importlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

Injection = dict[str, Any]
"""`do`, the name of a function in INJECTIONS, its arguments, and `rank` where only one of several is meant."""


def apply(injections: list[Injection]) -> None:
    """Arm the injections that are meant for this process."""
    for injection in injections:
        arguments = dict(injection)
        if arguments.pop("rank", None) in (None, int(os.environ.get("RANK", "0"))):
            INJECTIONS[arguments.pop("do")](**arguments)


def wrap(target: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a function, named as `module:attribute.path`, by what `around` makes of it."""
    module, path = target.split(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    setattr(owner, name, around(getattr(owner, name)))


def at_call(target: str, nth: int, act: Callable[[], None]) -> None:
    """Run `act` when a function is called for the nth time, before its own work."""
    calls = []

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            calls.append(target)
            if len(calls) == nth:
                act()
            return function(*args, **kwargs)

        return wrapped

    wrap(target, around)


def send_signal(at: str, nth: int, number: int, to: str = "self") -> None:
    """A signal to this process, to its parent (the launcher), or to its whole group, as Ctrl-C is."""

    def act() -> None:
        receivers = {"self": os.getpid(), "parent": os.getppid(), "group": -os.getpgrp()}
        os.kill(receivers[to], number)

    at_call(at, nth, act)


def fill_disk(at: str, nth: int, folder: str) -> None:
    """Leave no byte free on the disk of a folder."""

    def act() -> None:
        with open(Path(folder) / "ballast", "wb", buffering=0) as ballast:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while ballast.write(b"\0" * size):
                        pass
                except OSError:
                    continue

    at_call(at, nth, act)


def make_read_only(at: str, nth: int, folder: str) -> None:
    """Nothing can be written into a folder any more; files that are open already stay so."""

    def act() -> None:
        subprocess.run(["mount", "--bind", folder, folder], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)

    at_call(at, nth, act)


def exhaust_memory(at: str, nth: int) -> None:
    """No more address space than this process has, and a tensor that needs more."""

    def act() -> None:
        import torch

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), resource.RLIM_INFINITY))
        torch.zeros(1 << 30)

    at_call(at, nth, act)


def limit_file_size(at: str, nth: int, size: int) -> None:
    """No file may grow beyond so many bytes; Python ignores the signal that comes with it."""
    at_call(at, nth, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY)))


def turn_clock_back(at: str, nth: int, seconds: float) -> None:
    """From that call on, time.time() is so many seconds earlier."""
    real = time.time
    at_call(at, nth, lambda: setattr(time, "time", lambda: real() - seconds))


def pretend_version(package: str, version: str) -> None:
    """Another version of a library, as far as anybody can ask."""

    def around(real: Callable[[str], str]) -> Callable[[str], str]:
        return lambda name: version if name == package else real(name)

    wrap("importlib.metadata:version", around)


def limit_stalls(seconds: float) -> None:
    """How long a process waits for the others before it gives up."""
    importlib.import_module("rlhf.parallel.launch").STALL_LIMIT = timedelta(seconds=seconds)  # type: ignore[attr-defined]


def stop_forever(at: str, nth: int) -> None:
    """Suspend this process; nobody wakes it."""
    at_call(at, nth, lambda: os.kill(os.getpid(), signal.SIGSTOP))


def fail(at: str, nth: int, message: str) -> None:
    """An error of the program, a RuntimeError."""

    def act() -> None:
        raise RuntimeError(message)

    at_call(at, nth, act)


def kill_children(at: str, nth: int, named: str) -> None:
    """SIGKILL the child processes of this one whose command line has that text in it."""

    def act() -> None:
        threads = Path("/proc/self/task").iterdir()
        children = [pid for thread in threads for pid in (thread / "children").read_text().split()]
        found = [pid for pid in children if named.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]
        if not found:
            os._exit(99)
        for pid in found:
            os.kill(int(pid), signal.SIGKILL)

    at_call(at, nth, act)


INJECTIONS: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (
        send_signal,
        fill_disk,
        make_read_only,
        exhaust_memory,
        limit_file_size,
        turn_clock_back,
        pretend_version,
        limit_stalls,
        stop_forever,
        fail,
        kill_children,
    )
}
