"""A pool of sandbox processes, shared by all rewards of a process that want the same limits."""

import atexit
import os
import queue
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

from rlhf.rewards.react.render.installation import find_installation
from rlhf.rewards.react.render.sandbox import Sandbox, SandboxDiedError
from rlhf.rewards.react.syntax import MAX_CHARACTERS

CACHE_ENTRIES = 1024
CACHED_CHARACTERS = 20_000  # longer code or HTML is not kept


@dataclass(frozen=True)
class Rendered:
    """What became of a completion: `html`, or None and the `error`.

    `stand_ins` counts the elements that were stand-ins for components imported from elsewhere.
    """

    html: str | None
    error: str = ""
    stand_ins: int = 0


class RenderPool:
    """Renders components in up to `workers` sandbox processes, each completion with `seconds` of CPU time.

    Processes start when first needed. One that dies or has grown is replaced; the completion on which it died of
    anything but time is tried once more. Safe for threads; after a fork the child has processes of its own.
    """

    def __init__(self, workers: int, seconds: float) -> None:
        """Raises ValueError for numbers that are not positive, `RenderUnavailableError` if something is missing."""
        if workers < 1 or not 0 < seconds < float("inf"):
            raise ValueError(f"workers {workers} and time_limit {seconds} must be positive and finite")
        self._installation = find_installation()
        self.workers, self.seconds = workers, seconds
        self._begin()
        _live.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._cache: OrderedDict[str, Rendered] = OrderedDict()
        self._running: set[Sandbox] = set()
        self._idle: queue.SimpleQueue[Sandbox | None] = queue.SimpleQueue()
        for _ in range(self.workers):
            self._idle.put(None)
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="render")

    def render(self, codes: Sequence[str]) -> list[Rendered]:
        """Render every component of `codes`, in order; equal ones, and those seen lately, only once."""
        with self._lock:
            known = {code: self._cache[code] for code in codes if code in self._cache}
            for code in known:
                self._cache.move_to_end(code)
        new = [code for code in dict.fromkeys(codes) if code not in known]
        known.update(zip(new, self._threads.map(self._render, new), strict=True))
        return [known[code] for code in codes]

    def close(self) -> None:
        """End all processes. The pool starts new ones if it is used again."""
        threads, self._threads = self._threads, ThreadPoolExecutor(self.workers, thread_name_prefix="render")
        threads.shutdown(cancel_futures=True)
        for _ in range(self.workers):
            sandbox = self._idle.get()
            if sandbox:
                self._end(sandbox)
            self._idle.put(None)

    def processes(self) -> list[int]:
        """Ids of the sandbox processes that run at the moment."""
        with self._lock:
            return [sandbox.pid for sandbox in self._running]

    def __enter__(self) -> "RenderPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _render(self, code: str) -> Rendered:
        if len(code) > MAX_CHARACTERS:
            return Rendered(None, f"longer than {MAX_CHARACTERS} characters")
        try:
            rendered = parse_answer(self._ask(code))
        except SandboxDiedError as death:
            if death.timed_out:
                return Rendered(None, str(death))
            try:
                rendered = parse_answer(self._ask(code, fresh=True))
            except SandboxDiedError as second_death:
                return Rendered(None, str(second_death))
        self._remember(code, rendered)
        return rendered

    def _ask(self, code: str, fresh: bool = False) -> str:
        """The answer of an idle sandbox; of a new one if `fresh`, since all the idle ones may have died together."""
        sandbox = self._idle.get()
        if fresh and sandbox:
            self._end(sandbox)
            sandbox = None
        usable = False
        try:
            if sandbox is None:
                sandbox = Sandbox(self._installation, self.seconds)
                with self._lock:
                    self._running.add(sandbox)
            answer = sandbox.ask(code)
            usable = not sandbox.retiring
            return answer
        finally:
            if sandbox and not usable:
                self._end(sandbox)
            self._idle.put(sandbox if usable else None)

    def _end(self, sandbox: Sandbox) -> None:
        sandbox.kill()
        with self._lock:
            self._running.discard(sandbox)

    def _remember(self, code: str, rendered: Rendered) -> None:
        if rendered.error == "time limit exceeded" or len(code) + len(rendered.html or "") > CACHED_CHARACTERS:
            return
        with self._lock:
            self._cache[code] = rendered
            if len(self._cache) > CACHE_ENTRIES:
                self._cache.popitem(last=False)

    def after_fork(self) -> None:
        """Leave the parent's processes to the parent."""
        for sandbox in self._running:
            sandbox.abandon()
        self._begin()


def parse_answer(answer: str) -> Rendered:
    """Read a worker's answer; see `harness.js`."""
    if answer.startswith("+"):
        stand_ins, _, html = answer[1:].partition(":")
        return Rendered(html, stand_ins=int(stand_ins))
    return Rendered(None, answer[1:])


def shared_pool(workers: int | None, seconds: float) -> RenderPool:
    """The pool of this process with these limits; `workers` is by default one per CPU that a rank can count on."""
    key = (workers or default_workers(), seconds)
    with _shared_lock:
        if key not in _shared:
            _shared[key] = RenderPool(*key)
        return _shared[key]


def default_workers() -> int:
    """CPUs of this process, shared between the ranks on the machine; at most 8."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, max(1, cpus // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


_live: "weakref.WeakSet[RenderPool]" = weakref.WeakSet()
_shared: dict[tuple[int, float], RenderPool] = {}
_shared_lock = threading.Lock()


def _after_fork() -> None:
    global _shared_lock
    _shared_lock = threading.Lock()
    for pool in _live:
        pool.after_fork()


@atexit.register
def _close_all() -> None:
    for pool in list(_live):
        pool.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
