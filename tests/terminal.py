"""Just enough of a terminal to see what a program leaves on the screen."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable

ESCAPE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])")


class Screen:
    """Rows of text as they stand after everything that was written; grows downwards, as a scrollback does."""

    def __init__(self, width: int) -> None:
        self.width, self.rows, self.y, self.x, self.cursor_visible = width, [""], 0, 0, True

    def write(self, text: str) -> "Screen":
        position = 0
        while position < len(text):
            escape = ESCAPE.match(text, position)
            if escape:
                self.obey(*escape.groups())
                position = escape.end()
                continue
            self.put(text[position])
            position += 1
        return self

    def obey(self, argument: str, command: str) -> None:
        if command == "A":
            self.y = max(0, self.y - int(argument or 1))
        elif command == "K" and argument == "2":
            self.rows[self.y] = ""
        elif command in "hl" and argument == "?25":
            self.cursor_visible = command == "h"
        elif command != "m":
            raise ValueError(f"CSI {argument}{command}: this terminal has not heard of it")

    def put(self, character: str) -> None:
        if character == "\r":
            self.x = 0
        elif character == "\n":
            self.y += 1
        else:
            if not character.isprintable():
                raise ValueError(f"{character!r} is nothing to see")
            if self.x == self.width:
                self.x, self.y = 0, self.y + 1
            self.grow()
            row = self.rows[self.y].ljust(self.x)
            self.rows[self.y] = row[: self.x] + character + row[self.x + 1 :]
            self.x += 1
        self.grow()

    def grow(self) -> None:
        self.rows += [""] * (self.y + 1 - len(self.rows))

    @property
    def text(self) -> str:
        return "\n".join(row.rstrip() for row in self.rows).rstrip()


class Terminal:
    """A program whose standard streams are a real pseudo-terminal of a given size.

    Args:
        command: What runs in it.
        size: Columns and lines.
        environment: In addition to this process's own.
        stdout: Where standard output goes instead.
    """

    def __init__(self, command: list[str], size: tuple[int, int], environment: dict[str, str], stdout=None) -> None:
        self.controller, terminal = pty.openpty()
        self.resize(*size)
        env = {k: v for k, v in os.environ.items() if k != "CI"} | {"TERM": "xterm-256color"} | environment
        self.process = subprocess.Popen(
            command, stdin=terminal, stdout=stdout or terminal, stderr=terminal, env=env, start_new_session=True
        )
        os.close(terminal)
        self.output = b""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.controller, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        os.killpg(self.process.pid, signal.SIGINT)

    def read_until(self, enough: Callable[[str], bool], seconds: float = 60) -> str:
        """Everything written so far, once it is enough; raises TimeoutError, with the text, if it never is."""
        deadline = time.monotonic() + seconds
        while not enough(self.text):
            ready, _, _ = select.select([self.controller], [], [], 0.1)
            if ready:
                try:
                    self.output += os.read(self.controller, 65536)
                except OSError:  # all programs have closed their end
                    if enough(self.text):
                        break
                    raise EOFError(self.text) from None
            elif time.monotonic() > deadline:
                raise TimeoutError(self.text)
        return self.text

    def finish(self, seconds: float = 60) -> str:
        """Everything written until the program ended."""
        try:
            self.read_until(lambda text: False, seconds)
        except EOFError:
            pass
        finally:
            self.process.wait(seconds)
            os.close(self.controller)
        return self.text

    @property
    def text(self) -> str:
        return self.output.decode("utf-8", errors="replace")
