"""How far a run is: a live view in a terminal, a line every few seconds elsewhere, nothing on other ranks."""

import os
import sys
import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from rlhf.errors import visible as harmless
from rlhf.runs.interruption import NOTICE, write_notice

SECONDS_BETWEEN_LINES = 10.0
REFRESHES_PER_SECOND = 2.0
ROWS, SAMPLE_LINES, WIDEST_BAR, LABEL = 4, 12, 40, 10
"""Of the live view: updates in its table, lines of the response, cells of the bar and of the sample's labels."""

Figures = Mapping[str, str]


class ProgressBar:
    """`with ProgressBar("ppo", 30) as bar: bar.advance({"score": "1.31"})`.

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
        self.note = self.notice = ""
        self.rows: deque[tuple[int, Figures]] = deque(maxlen=ROWS)
        self.sample: tuple[str, str] | None = None
        self.live = self._live() if visible and is_terminal() else None

    def advance(self, figures: Figures | None = None, note: str = "", sample: tuple[str, str] | None = None) -> None:
        """One step further.

        Args:
            figures: Columns of the live view; name and value one after the other in a line.
            note: Anything else about this step.
            sample: A prompt and the response to it, for the live view.
        """
        self.done += 1
        self.note, self.sample = note, sample or self.sample
        if figures:
            self.rows.append((self.done, figures))
        if self.live:
            self.live.refresh()
        elif self.visible:
            self._print_line(figures or {})

    def say(self, line: str, style: str = "yellow") -> None:
        """Print a line above the view; the style is that of a warning."""
        if self.live:
            self.live.console.print(harmless(line), style=style, highlight=False, markup=False)
        elif self.visible:
            print(harmless(line), file=sys.stderr, flush=True)

    def stopping(self) -> None:
        """Say that a request to stop was heard; may be called by a signal handler."""
        if self.live:
            self.notice = NOTICE.decode().strip()  # what the handler wrote itself would shift the view
        elif self.visible:
            write_notice()

    def __enter__(self) -> Self:
        self.started = time.monotonic()
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.live:
            self.sample, self.notice = None, ""  # the figures stay on the screen, the sample does not
            self.live.stop()

    def _live(self) -> Live:
        console = Console(stderr=True)
        return Live(
            console=console,
            get_renderable=lambda: Group(*self.view(console.width, console.height)),
            refresh_per_second=REFRESHES_PER_SECOND,
            redirect_stdout=sys.stdout.isatty(),  # else what is printed would end up in the terminal, not in the file
            vertical_overflow="crop",
        )

    def view(self, width: int, height: int) -> list[Text]:
        """The lines of the live view, for a terminal of this size; one line of it stays free."""
        lines = [self._bar(width), *([Text(self.notice, "yellow")] if self.notice and height >= 4 else [])]
        rows = min(ROWS, height - 2 - len(lines))
        if rows > 0 and self.rows:
            lines += table(list(self.rows)[-rows:], width)
        left = height - 1 - len(lines)
        if self.sample and left >= 4:
            lines += sample_lines(*self.sample, min(left, SAMPLE_LINES + 3))
        return [_one_line(line) for line in lines]

    def _bar(self, width: int) -> Text:
        elapsed, eta = self._times()
        before, after = f"{self.title}  {self.done}/{self.total}  ", f"  {elapsed}  ETA {eta}  "
        room = min(WIDEST_BAR, width - len(before) - len(after))
        filled = room * self.done // max(1, self.total)
        bar = (
            [("━" * filled, "cyan"), ("━" * (room - filled), "bright_black"), after] if room >= 8 else [after.lstrip()]
        )
        return Text.assemble((before, "bold"), *bar, (self.note, "yellow"))

    def _times(self) -> tuple[str, str]:
        """Time since the start of this process, and time that is left."""
        elapsed, done = time.monotonic() - self.started, self.done - self.done_before
        return clock(elapsed), clock(elapsed / done * (self.total - self.done)) if done else "-:--"

    def _print_line(self, figures: Figures) -> None:
        now = time.monotonic()
        if now - self.last_line < SECONDS_BETWEEN_LINES and self.done < self.total:
            return
        self.last_line = now
        elapsed, eta = self._times()
        said = [f"{name} {value}" for name, value in figures.items()]
        parts = [f"{self.title} {self.done}/{self.total}", elapsed, f"ETA {eta}", *said, self.note]
        print(harmless("  ".join(part for part in parts if part)), file=sys.stderr, flush=True)


def is_terminal() -> bool:
    """Whether standard error is a terminal that can redraw lines."""
    return sys.stderr.isatty() and not os.environ.get("CI") and os.environ.get("TERM") not in (None, "dumb")


def table(rows: list[tuple[int, Figures]], width: int) -> list[Text]:
    """Header and rows in aligned columns, the newest row last; columns that do not fit are left out."""
    columns = [["step", *(str(step) for step, _ in rows)]]
    columns += [[name, *(figures.get(name, "-") for _, figures in rows)] for name in rows[-1][1]]
    lines = [""] * (len(rows) + 1)
    for column in columns:
        cells = max(len(cell) for cell in column)
        if len(lines[0]) + cells > width:
            break
        lines = [f"{line}{cell:>{cells}}   " for line, cell in zip(lines, column, strict=True)]
    styles = ["bright_black", *[""] * (len(rows) - 1), "bold"]
    return [Text(line.rstrip(), style) for line, style in zip(lines, styles, strict=True)]


def sample_lines(prompt: str, response: str, height: int) -> list[Text]:
    """An empty line, the first line of the prompt and the first lines of the response: at most `height` lines."""
    shown, room = text_lines(response), height - 2
    if len(shown) > room:
        shown = [*shown[: room - 1], f"… {len(shown) - room + 1} more lines"]
    asked = text_lines(prompt)
    first = asked[0] + (" …" if len(asked) > 1 else "")
    labels = ["prompt", "response", *[""] * (len(shown) - 1)]
    return [
        Text(""),
        *(
            Text.assemble((f"{label:<{LABEL}}", "bright_black"), line)
            for label, line in zip(labels, [first, *shown], strict=True)
        ),
    ]


def text_lines(text: str) -> list[str]:
    """The lines of a text without empty ones at its ends; control characters are spelled out."""
    return harmless(text).expandtabs(4).strip("\n").split("\n")


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours from one hour on."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _one_line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
