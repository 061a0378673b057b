"""Calling a reward: plain or async, with or without a time limit."""

import asyncio
import functools
import inspect
import math
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, wait
from typing import Any

from rlhf.rewards import threads

SECONDS_TO_CANCEL = 1.0


class TimeLimitError(Exception):
    """A reward did not answer within its limit."""


def call(function: Callable[..., Any], arguments: dict[str, Any], seconds: float | None = None) -> Any:
    """What `function(**arguments)` returns or, if that is awaitable, what it comes to.

    Awaitables run on one event loop in a thread of its own, the same for every call, so that a reward can keep its
    connections open; a caller may itself be inside a loop. Without a limit a plain function runs in the calling thread.
    With one it runs in a thread that is stopped when the limit is over (at its next line of Python, see
    `rlhf.rewards.threads`; nothing waits for it), and an awaitable is canceled.

    Raises TimeLimitError after `seconds`, and whatever the function raises.
    """
    if seconds is None:
        output = answered(function, arguments)
        return _in_loop(output).result() if inspect.isawaitable(output) else output
    deadline = time.monotonic() + seconds
    answer, thread = _in_thread(function, arguments)
    try:
        output = _within(answer, seconds)
    except TimeLimitError:
        threads.stop(thread)
        raise
    if inspect.isawaitable(output):
        return _within(_in_loop(output), deadline - time.monotonic())
    return output


def answered(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """What the function returns; raises RuntimeError where it, or code that it runs, asks the program to end."""
    try:
        return function(**arguments)
    except SystemExit as end:
        raise RuntimeError(f"exit({end.code})") from end


def call_each(
    calls: Sequence[tuple[Callable[..., Any], dict[str, Any]]], seconds: float | None = None
) -> list[Any | Exception]:
    """What each call comes to, as `call` has it, or the exception that it raises.

    Coroutine functions run at the same time, everything else one call after the other: what happens then does not
    depend on who is faster.
    """
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    begun = [_in_loop(f(**given)) if inspect.iscoroutinefunction(f) else None for f, given in calls]

    def outcome(function: Callable[..., Any], arguments: dict[str, Any], running: "Future[Any] | None") -> Any:
        try:
            if running is None:
                return call(function, arguments, seconds)
            return running.result() if seconds is None else _within(running, deadline - time.monotonic())
        except Exception as error:
            return error

    return [outcome(*each, running) for each, running in zip(calls, begun, strict=True)]


class Background:
    """Calls one after the other in threads that, unlike those of an executor, keep the program from nothing.

    A reward that hangs must not hold up the end of a program that has been interrupted.
    """

    def __init__(self) -> None:
        self._last: Future[Any] = Future()
        self._last.set_result(None)

    def submit(self, function: Callable[..., Any], **arguments: Any) -> "Future[Any]":
        """Call the function once all that was submitted before has been done."""
        before = self._last

        def in_turn(**given: Any) -> Any:
            wait([before])
            return function(**given)

        self._last, _ = _in_thread(in_turn, arguments)
        return self._last


def _within(future: "Future[Any]", seconds: float) -> Any:
    # Not future.result(seconds): the TimeoutError of a reward's own network client would look like ours.
    if wait([future], timeout=max(0.0, seconds)).done:
        return future.result()
    future.cancel()
    _replace_a_blocked_loop()
    raise TimeLimitError


def _in_thread(function: Callable[..., Any], arguments: dict[str, Any]) -> "tuple[Future[Any], threading.Thread]":
    future: Future[Any] = Future()

    def work() -> None:
        try:
            output = answered(function, arguments)
        except BaseException as error:
            outcome: Callable[[], None] = functools.partial(future.set_exception, error)
        else:
            outcome = functools.partial(future.set_result, output)
        if future.set_running_or_notify_cancel():
            outcome()

    return future, threads.start(work, "reward")


def _in_loop(awaitable: Awaitable[Any]) -> "Future[Any]":
    async def run() -> Any:
        try:
            return await awaitable
        except SystemExit as end:  # it would end the loop, and whoever waits for the answer would wait for ever
            raise RuntimeError(f"exit({end.code})") from end

    return asyncio.run_coroutine_threadsafe(run(), _loop(os.getpid()))


@functools.cache
def _loop(process: int) -> asyncio.AbstractEventLoop:
    """The event loop of this process (a fork has none of its parent's threads), running."""
    loop = asyncio.new_event_loop()
    threads.start(loop.run_forever, "async rewards", wake=lambda: loop.call_soon_threadsafe(loop.stop))
    return loop


def _replace_a_blocked_loop() -> None:
    """Forget the loop if it no longer turns: an async reward that blocks must not hang the next call."""
    if _loop.cache_info().currsize and not wait([_in_loop(asyncio.sleep(0))], timeout=SECONDS_TO_CANCEL).done:
        _loop.cache_clear()
