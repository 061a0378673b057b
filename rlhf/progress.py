"""Progress with an ETA: a live bar in a terminal, a line every few seconds elsewhere, nothing on other ranks."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0


class ProgressBar:
    """`with ProgressBar("ppo", 30) as bar: bar.advance("reward 1.31")`.

    Args:
        title: What is under way.
        total: Steps until it is done.
        visible: False silences it (on ranks other than the first).
        done: Steps that an earlier process has done.
    """

    def __init__(self, title: str, total: int, visible: bool = True, done: int = 0) -> None:
        self.title, self.total, self.visible = title, total, visible
        self.done = self.done_before = done
        self.started, self.last_line = time.monotonic(), float("-inf")
        self.live = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            disable=not visible,
        )
        self.in_terminal = sys.stderr.isatty()
        self.task = self.live.add_task(title, total=total, completed=done, note="") if self.in_terminal else None

    def advance(self, note: str = "") -> None:
        """One step further; `note` stands behind the bar."""
        self.done += 1
        if self.task is not None:
            self.live.update(self.task, advance=1, note=note)
        elif self.visible:
            self._print_line(note)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if self.task is not None:
            self.live.console.print(line, highlight=False, markup=False)
        elif self.visible:
            print(line, file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        self.started = time.monotonic()
        if self.task is not None:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.task is not None:
            self.live.stop()

    def _print_line(self, note: str) -> None:
        now = time.monotonic()
        if now - self.last_line < SECONDS_BETWEEN_LINES and self.done < self.total:
            return
        self.last_line = now
        elapsed = now - self.started
        eta = elapsed / (self.done - self.done_before) * (self.total - self.done)
        print(
            f"{self.title} {self.done}/{self.total}  {_clock(elapsed)}  ETA {_clock(eta)}  {note}",
            file=sys.stderr,
            flush=True,
        )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d}"
