"""What a process takes from the machine, read after every update."""

import json
import os
import resource
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch

from rlhf.ppo.trainer import Callback

if TYPE_CHECKING:
    from rlhf.ppo.trainer import PPOTrainer, Update


@dataclass(frozen=True)
class Reading:
    """One look at the process, by the end of an update.

    Attributes:
        update: Which one.
        seconds: Since the last reading: the update, and the metrics, inspection and checkpoint of the one before it.
        cpu_seconds: Processor time in that.
        cpu_unit: Processor time of a fixed piece of work, done just then: the machine's speed changes with its load.
        memory: Resident bytes.
        handles: Open files, sockets and pipes.
        threads: Threads of the operating system.
        checkpoint_bytes: Size of the checkpoints.
        other_bytes: Size of all other files in the run folder: metrics, samples, TensorBoard's events, some rollouts.
    """

    update: int
    seconds: float
    cpu_seconds: float
    cpu_unit: float
    memory: int
    handles: int
    threads: int
    checkpoint_bytes: int
    other_bytes: int

    @classmethod
    def of_this_process(cls, update: int, seconds: float, cpu_seconds: float, folder: Path) -> Self:
        """Read /proc (Linux) and the run folder."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        checkpoint_bytes = size(folder / "checkpoints")
        return cls(
            update=update,
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            cpu_unit=seconds_of_fixed_work(),
            memory=pages * resource.getpagesize(),
            handles=len(os.listdir("/proc/self/fd")),
            threads=len(os.listdir("/proc/self/task")),
            checkpoint_bytes=checkpoint_bytes,
            other_bytes=size(folder) - checkpoint_bytes,
        )


class Gauge(Callback):
    """Prints a `Reading` after every update, as a line of JSON."""

    def __init__(self) -> None:
        self.last = clocks()

    def after_update(self, trainer: "PPOTrainer", update: "Update") -> None:
        seconds, cpu_seconds = (now - before for now, before in zip(clocks(), self.last, strict=True))
        folder = Path(trainer.config.output_dir)
        reading = Reading.of_this_process(trainer.updates_done, seconds, cpu_seconds, folder)
        print(json.dumps(asdict(reading)), flush=True)
        self.last = clocks()  # looking is none of the run's business


def seconds_of_fixed_work() -> float:
    """Processor time of 200 steps of small tensors, about a millisecond: what an update of a small model is made of."""
    started = time.process_time()
    x = torch.eye(16)
    for _ in range(200):
        x = (x @ x).tanh()
    return time.process_time() - started


def size(folder: Path) -> int:
    """Bytes of all files in a folder, at any depth."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def clocks() -> tuple[float, float]:
    """Wall clock and processor time of this process, in seconds."""
    return time.perf_counter(), time.process_time()


def parsed(line: str) -> Reading | None:
    """The reading in a line of output; None if it is another line, or was cut off by a kill."""
    try:
        return Reading(**json.loads(line))
    except (ValueError, TypeError):
        return None
