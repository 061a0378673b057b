"""One sandbox process, seen from the parent: start, ask, kill."""

import os
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

from rlhf.rewards.react.render.installation import Installation

MEMORY = 64 << 20  # bytes that the completion may allocate
START_TIME = 30.0  # seconds
MAX_ANSWER = 4 << 20  # bytes; the harness allows far less
_WORKER = Path(__file__).with_name("worker.py")
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class SandboxDiedError(Exception):
    """The process ended, or was ended, without an answer. `timed_out` tells whether time was the reason."""

    def __init__(self, reason: str, *, timed_out: bool) -> None:
        super().__init__(reason)
        self.timed_out = timed_out


class Sandbox:
    """A process that renders one completion after another. Not safe for use by two threads at a time."""

    def __init__(self, installation: Installation, seconds: float) -> None:
        self.patience = 10 * seconds + 5  # wall clock; the worker's own limits count CPU time
        self.retiring = False
        arguments = [installation.engine, installation.scripts, seconds, MEMORY]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_WORKER), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is the parent's to handle
            cwd="/",
            env={"TZ": "UTC"} | {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
        )
        self._ready = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, code: str) -> str:
        """The worker's answer for `code`. Raises `SandboxDiedError`; the sandbox is then of no more use."""
        if not self._ready:
            self._receive(START_TIME)
            self._ready = True
        data = code.encode("utf-8", "replace")  # lone surrogates become "?"
        try:
            self._send(struct.pack(">I", len(data)) + data)
        except OSError:
            raise self._death() from None
        answer = self._receive(self.patience)
        self.retiring = answer.startswith("!")
        return answer.removeprefix("!")

    def kill(self) -> None:
        """End the process, whatever it is doing, and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        self._close_pipes()

    def abandon(self) -> None:
        """In a forked child: let go of a process that is the parent's to end."""
        self._process.returncode = 0  # else Python complains that nobody waited for it
        self._close_pipes()

    def _close_pipes(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()

    def _send(self, data: bytes) -> None:
        assert self._process.stdin
        view = memoryview(data)
        while view:
            view = view[os.write(self._process.stdin.fileno(), view) :]

    def _receive(self, patience: float) -> str:
        deadline = time.monotonic() + patience
        (length,) = struct.unpack(">I", self._read(4, deadline))
        if length > MAX_ANSWER:
            raise SandboxDiedError("the sandbox answered nonsense", timed_out=False)
        return self._read(length, deadline).decode("utf-8", "replace")

    def _read(self, size: int, deadline: float) -> bytes:
        assert self._process.stdout
        descriptor = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        data = bytearray()
        while len(data) < size:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise SandboxDiedError("time limit exceeded", timed_out=True)
            chunk = os.read(descriptor, size - len(data))
            if not chunk:
                raise self._death()
            data += chunk
        return bytes(data)

    def _death(self) -> SandboxDiedError:
        code = self._process.wait()
        if code == -signal.SIGPROF:
            return SandboxDiedError("time limit exceeded", timed_out=True)
        return SandboxDiedError(f"the sandbox process ended with status {code}", timed_out=False)
