"""Faults that end a process, each planned for a moment in a run, and what they do."""

import os
import random
import resource
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rlhf.ppo.trainer import Callback
from rlhf.runs.folder import METRICS_FILE

if TYPE_CHECKING:
    from rlhf.ppo.trainer import PPOTrainer
    from rlhf.sampling.responses import Responses

SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
DAMAGE = ("bit flipped", "file cut")
KINDS = (*SIGNALS, *DAMAGE, "disk full", "gradients NaN")
LAST_WORDS = {
    "SIGTERM": "Interrupted",
    "SIGINT": "Interrupted",
    "disk full": "File too large",
    "gradients NaN": "not finite in 4 optimizer steps",
}
"""What the last line of a process says that could still speak."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong in a process.

    Attributes:
        kind: One of KINDS. After DAMAGE the process is killed, and its newest checkpoint is not what it was.
        update: In which update.
        moment: How long after the beginning of its sampling a signal comes, in usual updates: one lasts from 0 to 1.
        draw: Seeds what else there is to choose.
    """

    kind: str
    update: int
    moment: float
    draw: int


def plan(updates: int, every: int, seed: int) -> list[Fault]:
    """One fault at random in every `every` updates, all kinds equally often, in random order.

    A fault that comes after the beginning of its update is over before the next one is due.
    """
    dice = random.Random(seed)
    windows = range(0, updates, every)
    kinds = [KINDS[index % len(KINDS)] for index in range(len(windows))]
    dice.shuffle(kinds)
    return [
        Fault(kind, start + dice.randint(1, every - 3), dice.random(), dice.randrange(2**32))
        for kind, start in zip(kinds, windows, strict=True)
    ]


class Strike(Callback):
    """Lets one fault happen.

    Args:
        fault: Which, and when.
        update_seconds: What an update usually takes.
    """

    def __init__(self, fault: Fault, update_seconds: float) -> None:
        self.fault, self.delay = fault, fault.moment * update_seconds

    def after_sampling(self, trainer: "PPOTrainer", responses: "Responses") -> None:
        if trainer.updates_done + 1 == self.fault.update:
            self._acts()[self.fault.kind](trainer)

    def _acts(self) -> "dict[str, Callable[[PPOTrainer], None]]":
        signals = dict.fromkeys((*SIGNALS, *DAMAGE), self._signal)
        return {**signals, "disk full": self._fill_the_disk, "gradients NaN": self._spoil_gradients}

    def _signal(self, trainer: "PPOTrainer") -> None:
        number = SIGNALS.get(self.fault.kind, signal.SIGKILL)
        timer = threading.Timer(self.delay, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()

    def _fill_the_disk(self, trainer: "PPOTrainer") -> None:
        """No file of this process can grow beyond the size of the metrics and a little more (EFBIG)."""
        room = (Path(trainer.config.output_dir) / METRICS_FILE).stat().st_size + self.fault.draw % 1000
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))

    def _spoil_gradients(self, trainer: "PPOTrainer") -> None:
        for _, parameter in trainer.policy.trainable:
            parameter.register_hook(lambda gradient: torch.full_like(gradient, float("nan")))


def damage_newest_checkpoint(fault: Fault, run: Path) -> Path | None:
    """Flip a random bit of a random file of the newest checkpoint, or cut that file at random; returns the file."""
    dice = random.Random(fault.draw)
    checkpoints = sorted(run.glob("checkpoints/checkpoint-[0-9]*"))
    if not checkpoints:
        return None
    file = dice.choice(sorted(path for path in checkpoints[-1].rglob("*") if path.is_file() and path.stat().st_size))
    content = bytearray(file.read_bytes())
    place = dice.randrange(len(content))
    if fault.kind == "bit flipped":
        content[place] ^= 1 << dice.randrange(8)
    else:
        del content[place:]
    file.write_bytes(content)
    return file
