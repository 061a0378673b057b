"""One `rlhf` command in a process of its own, with faults inside."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.forks import fork, wait_for
from faults.inject import Injection, apply, wrap


@dataclass(frozen=True)
class Ended:
    """What became of a process: exit status (negative: the signal that killed it), None if it had to be killed
    because its time was over, and what it wrote."""

    status: int | None
    out: str
    err: str


@dataclass(frozen=True)
class Command:
    """An `rlhf` command to be started.

    Args:
        arguments: Those of the command line.
        steps: File that gets a line for every step that was done and every checkpoint that was reported as saved.
        log: Where its output goes, with .out and .err behind the name.
        injections: What is to go wrong in it.
        environment: Changes to the environment; None removes a variable.
        launcher: The command that starts the processes; none starts a single one.
    """

    arguments: list[str]
    steps: Path
    log: Path
    injections: list[Injection] = field(default_factory=list)
    environment: dict[str, str | None] = field(default_factory=dict)
    launcher: list[str] = field(default_factory=list)

    def run(self, seconds: float, meanwhile: Callable[[int], None] | None = None) -> Ended:
        """Start it and wait; `meanwhile` gets the id of the process, which leads a group. Nothing of it survives."""
        outputs = [self.log.with_suffix(suffix) for suffix in (".out", ".err")]
        for file in outputs:  # here, because a process may be killed before it has opened them
            file.write_bytes(b"")
        start = self._launch if self.launcher else self._fork
        status = start(outputs, seconds, meanwhile)
        return Ended(status, *(file.read_text(errors="replace") for file in outputs))

    def _fork(self, outputs: list[Path], seconds: float, meanwhile: Callable[[int], None] | None) -> int | None:
        process = fork(begin, self, outputs)
        assert process.pid is not None
        if meanwhile:
            meanwhile(process.pid)
        status = wait_for(process, seconds)
        end_group(process.pid)
        wait_for(process)
        return status

    def _launch(self, outputs: list[Path], seconds: float, meanwhile: Callable[[int], None] | None) -> int | None:
        module = ["-m", "faults.process", *self.arguments]
        environment = dict(os.environ)
        change_environment(environment, self.environment)
        environment |= {
            "FAULTS": json.dumps(self.injections), "STEPS": str(self.steps), "ACCELERATE_USE_CPU": "true",
            "PYTHONPATH": os.pathsep.join(["tests/reliability", "."]),
        }  # fmt: skip
        with open(outputs[0], "wb") as out, open(outputs[1], "wb") as err:
            process = subprocess.Popen(
                [*self.launcher, *module], env=environment, stdout=out, stderr=err, start_new_session=True
            )
            if meanwhile:
                meanwhile(process.pid)
            try:
                status: int | None = process.wait(seconds)
            except subprocess.TimeoutExpired:
                status = None
            wait_for_rest(self.arguments[-1], 40 if status is not None else 0)
            process.wait()
        return status


def begin(command: Command, outputs: list[Path]) -> None:
    """In the new process: what a shell would do for it, then the command."""
    os.setsid()
    for descriptor, file in enumerate(outputs, start=1):
        with open(file, "wb") as stream:
            os.dup2(stream.fileno(), descriptor)
    change_environment(os.environ, command.environment)
    status: Any = 0
    try:
        run_command(command.arguments, command.injections, command.steps)
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    ctypes.pythonapi.Py_Exit(status or 0)  # Python ends as it would; a fork would leave without that


def change_environment(variables: MutableMapping[str, str], changes: dict[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            variables.pop(name, None)
        else:
            variables[name] = value


def run_command(arguments: list[str], injections: list[Injection], steps: Path) -> None:
    """The command line, with faults armed and steps written down."""
    import torch

    from rlhf import cli

    for module in ("write_points", "poison"):
        __import__(f"faults.{module}")
    torch.set_num_threads(1)
    write_down_steps(steps)
    apply(injections)
    cli.main(arguments)


def write_down_steps(steps: Path) -> None:
    """A line `did STAGE/STEP` once a step's metrics are on disk, `saved STAGE/STEP` once a checkpoint is reported."""

    def note(verb: str, folder: Path, step: int) -> None:
        with open(steps, "a", encoding="utf-8") as file:
            file.write(f"{verb} {folder.name} {step}\n")

    def logging(log: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(self: Any, metrics: Any, step: int) -> None:
            log(self, metrics, step)
            if self.active:
                note("did", self.metrics.file.parent, step)

        return wrapped

    def saving(save: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(self: Any, step: int, write: Any) -> Any:
            path = save(self, step, write)
            note("saved", self.folder.parent, step)
            return path

        return wrapped

    wrap("rlhf.tracking.tracker:Tracker.log", logging)
    wrap("rlhf.runs.checkpoints:CheckpointManager.save", saving)


def end_group(pid: int) -> None:
    """SIGKILL whatever is left of a process group; stopped processes too."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def wait_for_rest(argument: str, seconds: float) -> None:
    """Wait until no process is left that was started with an argument; then SIGKILL those that are.

    Launchers put processes in sessions of their own, and may end before them.
    """
    limit = time.monotonic() + seconds
    while (left := started_with(argument)) and time.monotonic() < limit:
        time.sleep(0.1)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def started_with(argument: str) -> list[int]:
    """Ids of the processes, all but zombies, that have an argument on their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if argument.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


if __name__ == "__main__":
    run_command(sys.argv[1:], json.loads(os.environ["FAULTS"]), Path(os.environ["STEPS"]))
