"""A run in one process, or in as many as the faults make of it."""

import json
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from endurance.faults import DAMAGE, LAST_WORDS, SIGNALS, Fault, damage_newest_checkpoint
from endurance.gauge import Reading, parsed
from endurance.task import CHECKPOINT_EVERY
from rlhf.runs.files import read_jsonl
from rlhf.runs.folder import METRICS_FILE, SAMPLES_FILE, WARNINGS_FILE

SCRIPT = Path(__file__).parents[1] / "life.py"
SECONDS_PER_UPDATE, SECONDS_TO_START = 2.0, 120.0
"""A process that takes longer has hung: it is killed, and the long run ends with an error."""

LINES_KEPT = 20


@dataclass(frozen=True)
class Life:
    """A process of the run: its readings, what it died of (None: it finished), and the last lines of its output."""

    readings: list[Reading]
    fault: Fault | None
    log: list[str]


def live(folder: Path, name: str, updates: int, update_seconds: float = 0.0, fault: Fault | None = None) -> Life:
    """Start or continue the run `name` in a process, until that ends; raises RuntimeError if it ends otherwise."""
    command = [sys.executable, str(SCRIPT), str(folder), name, str(updates), str(update_seconds)]
    command += [json.dumps(asdict(fault))] if fault else []
    readings, log = [], deque[str](maxlen=LINES_KEPT)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        limit = threading.Timer(SECONDS_TO_START + updates * SECONDS_PER_UPDATE, process.kill)
        limit.start()
        assert process.stdout is not None  # a pipe: see above
        for line in process.stdout:
            reading = parsed(line)
            if reading:
                readings.append(reading)
            else:
                log.append(line.rstrip())
        status = process.wait()
        limit.cancel()
    life = Life(readings, fault, list(log))
    if not died_as_planned(life, status):
        shown = "\n".join(life.log)
        raise RuntimeError(f"{name}: status {status} where {fault or 'success'} was expected; its last lines:\n{shown}")
    return life


def died_as_planned(life: Life, status: int) -> bool:
    """Whether the exit status, and what was said last, are those of the fault; without one, whether all went well."""
    if life.fault is None:
        return status == 0
    kind = life.fault.kind
    if kind in ("SIGKILL", *DAMAGE):
        return status == -SIGNALS["SIGKILL"]
    return status > 0 and bool(life.log) and LAST_WORDS[kind] in life.log[-1]


def endure(folder: Path, name: str, updates: int, faults: Sequence[Fault], update_seconds: float) -> list[Life]:
    """Restart the run after every fault until it has finished."""
    lives = []
    for fault in (*faults, None):
        life = live(folder, name, updates, update_seconds, fault)
        lives.append(life)
        if fault and fault.kind in DAMAGE:
            damage_newest_checkpoint(fault, folder / name)
    return lives


def repeated(lives: Sequence[Life]) -> list[tuple[str, int, int]]:
    """For each fault: its kind, how many finished updates had to be made again, and at most how many were allowed."""
    outcomes = []
    for life, following in pairwise(lives):
        assert life.fault is not None  # only the last one has none
        allowed = {"SIGTERM": 0, "SIGINT": 0}.get(life.fault.kind, CHECKPOINT_EVERY)
        allowed *= 2 if life.fault.kind in DAMAGE else 1
        outcomes.append((life.fault.kind, life.readings[-1].update + 1 - following.readings[0].update, allowed))
    return outcomes


def outcome(run: Path) -> dict[str, Any]:
    """What a finished run has left: all tensors of the policy bit for bit, metrics without times, samples, warnings."""
    return {
        "policy": {
            f"{file.relative_to(run)}: {name}": tensor.numpy().tobytes()
            for file in sorted((run / "policy").rglob("*.safetensors"))
            for name, tensor in load_file(file).items()
        },
        "metrics": [
            {name: value for name, value in row.items() if not name.startswith("time/")}
            for row in read_jsonl(run / METRICS_FILE)
        ],
        "samples": read_jsonl(run / SAMPLES_FILE),
        "warnings": read_jsonl(run / WARNINGS_FILE),
    }
