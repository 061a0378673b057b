"""Threads that keep the program from nothing, and that do not abort it when it ends.

Python ends a daemon thread in the middle of whatever it does when the program ends. One that comes back from C++ just
then, as from an operation of torch, takes the program along ("terminate called without an active exception", exit
status 134). So those that are still busy at the end are told to stop, and given a moment.
"""

import atexit
import ctypes
import threading
import time
from collections.abc import Callable

SECONDS_TO_STOP = 1.0

_busy: dict[threading.Thread, Callable[[], object]] = {}


def start(work: Callable[[], object], name: str, wake: Callable[[], object] = lambda: None) -> threading.Thread:
    """Run `work` in a thread of its own; `wake` brings it back to Python where it would wait for something in C."""

    def run() -> None:
        try:
            work()
        finally:
            del _busy[thread]

    thread = threading.Thread(target=run, name=name, daemon=True)
    _busy[thread] = wake
    thread.start()
    return thread


def stop(thread: threading.Thread) -> None:
    """Have the thread meet SystemExit at its next line of Python; what it does in C, such as sleep, is done first."""
    if thread.is_alive() and thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
        _busy.get(thread, lambda: None)()


@atexit.register
def _stop_all() -> None:
    threads = list(_busy)
    for thread in threads:
        stop(thread)
    deadline = time.monotonic() + SECONDS_TO_STOP
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
