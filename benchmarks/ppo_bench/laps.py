"""Time and memory of one side, phase by phase, told to the process that compares them."""

import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypedDict

import torch

PHASES = ("rollout", "scoring", "update")


class Measured(TypedDict):
    """One update: processor and wall seconds per phase, tokens of each response, peak memory so far in bytes."""

    cpu: dict[str, float]
    wall: dict[str, float]
    lengths: list[int]
    peak_memory: int


@dataclass
class Laps:
    """The clock of one side; after each update it reports and waits to be told to go on.

    Args:
        connection: To the comparing process.
    """

    connection: Connection
    cpu: dict[str, float] = field(default_factory=dict)
    wall: dict[str, float] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)
    last: tuple[float, float] = field(default_factory=lambda: now())

    def lap(self, phase: str) -> None:
        """A phase has ended, or a part of it."""
        (cpu, wall), self.last = self.last, now()
        self.cpu[phase] = self.cpu.get(phase, 0.0) + self.last[0] - cpu
        self.wall[phase] = self.wall.get(phase, 0.0) + self.last[1] - wall

    def report(self) -> None:
        """Send what was measured and wait; raises SystemExit when nothing more is wanted."""
        measured = Measured(cpu=self.cpu, wall=self.wall, lengths=self.lengths, peak_memory=peak_memory())
        self.connection.send(measured)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # the others need it now
        if not self.connection.recv():
            raise SystemExit
        self.cpu, self.wall, self.lengths, self.last = {}, {}, [], now()


def now() -> tuple[float, float]:
    """Processor and wall seconds, once the GPU (if any) has done what it was asked to."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.process_time(), time.perf_counter()


def peak_memory() -> int:
    """Bytes: of the GPU where there is one, else resident. (getrusage would count the parent process before exec.)"""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(line.split()[1])
