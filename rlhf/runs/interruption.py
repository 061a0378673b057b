"""Stopping a run on request: it finishes the step at hand, saves, and then stops."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

NOTICE = b"\nstopping after this step, with a checkpoint; press Ctrl-C again to stop at once without one\n"


class Termination:
    """Whether the process has been asked to stop since `catch_termination` was entered."""

    requested: bool = False


def write_notice() -> None:
    """Say on standard error that the request was heard; print() may not be entered again by the handler it calls."""
    os.write(2, NOTICE)


@contextmanager
def catch_termination(say: Callable[[], None] = write_notice) -> Iterator[Termination]:
    """Turn SIGTERM and SIGINT into `requested = True`; a second SIGINT raises KeyboardInterrupt at once.

    The handlers that were there before are put back at the end. Python delivers signals to the main thread only:
    entered in another thread, this changes nothing and `requested` stays False. `say` is called for the first SIGINT,
    within the handler.
    """
    termination = Termination()
    if threading.current_thread() is not threading.main_thread():
        yield termination
        return

    def request(number: int, frame: FrameType | None) -> None:
        termination.requested = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            say()

    before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield termination
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
