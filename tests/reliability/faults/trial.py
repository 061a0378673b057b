"""One injection: a run is disturbed, looked at, continued, and compared with the one that was left alone."""

import re
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from faults.inject import Injection
from faults.lab import Lab
from faults.outcome import difference, outcome
from faults.process import Ended

LIMIT = 60.0
"""Seconds after which a run on one process counts as hanging; two processes with their launcher get twice as many."""


class NotSurvived(Exception):  # noqa: N818
    """What was seen is not what is promised."""


class Lost(NotSurvived):
    """Something is gone for good, or other than in the undisturbed run."""


class Trial:
    """A run of its own in a folder, and what is seen of it.

    Args:
        lab: Where the undisturbed runs are.
        folder: Of this trial alone.
        stage: Which command is disturbed.
        launcher: What starts its processes; nothing for a single one.
    """

    def __init__(self, lab: Lab, folder: Path, stage: str = "ppo", launcher: list[str] | None = None) -> None:
        self.lab, self.folder, self.stage, self.launcher = lab, folder, stage, launcher or []
        self.run = folder / "run"
        self.changes: dict[str, Any] = {}
        self.environment: dict[str, str | None] = {}
        self.seen: list[str] = []
        self.may_lose_saved = False  # where the fault is that a checkpoint is damaged

    def start(
        self,
        *injections: Injection,
        limit: float | None = None,
        meanwhile: Callable[[int], None] | None = None,
        log: str = "log",
        **changes: Any,
    ) -> Ended:
        """Run the command until it ends by itself. `changes` are other settings than the undisturbed run has."""
        settings = self.changes | changes
        command = self.lab.command(self.stage, self.folder, list(injections), settings, self.launcher)
        command = replace(command, environment=command.environment | self.environment, log=self.folder / log)
        limit = limit or (2 * LIMIT if self.launcher else LIMIT)
        ended = command.run(limit, meanwhile)
        if ended.status is None:
            raise NotSurvived(f"hung: it had not ended after {limit:.0f} s")
        return ended

    def killed(self, ended: Ended, number: int) -> None:
        """The process has died of the signal."""
        self.require(ended.status == -number, f"it ended with status {ended.status} instead of signal {number}", ended)
        self.seen.append("dead")

    def stopped(self, ended: Ended) -> None:
        """It has saved, said so and ended with success."""
        self.require(ended.status == 0, f"it ended with status {ended.status}", ended)
        last = ended.out.strip().rsplit("\n", 1)[-1]
        self.require("the same command continues" in last, f"its last line is {last!r}", ended)
        self.seen.append("saved and stopped")

    def interrupted(self, ended: Ended) -> None:
        """It has ended at once, and one line says why."""
        self.require(ended.status == 130 and "error: interrupted" in ended.err, "no line says so", ended)
        self.seen.append("interrupted")

    def refused(self, ended: Ended, *patterns: str) -> None:
        """One line on standard error says what is wrong, the exit status is 2."""
        lines = [line for line in ended.err.splitlines() if "error: " in line and line.startswith("rlhf ")]
        of_threads = ended.err.count("Exception in thread")  # TensorBoard's, which has no other way to fail
        ours = ended.err.count("Traceback") > of_threads and not self.launcher  # a launcher always shows one
        self.require(not ours, "it showed a traceback", ended)
        self.require(len(lines) == 1, f"{len(lines)} lines say what is wrong", ended)
        self.require(ended.status == (1 if self.launcher else 2), f"it ended with status {ended.status}", ended)
        for pattern in patterns:
            found = re.search(pattern, lines[0]) is not None
            self.require(found, f"the line does not say {pattern!r}: {lines[0]}", ended)
        self.seen.append("refused in one line")

    def finished(self, ended: Ended, *patterns: str) -> None:
        """It came to its end in spite of the fault, and said what is to be said."""
        self.require(ended.status == 0, f"it ended with status {ended.status}", ended)
        for pattern in patterns:
            said = re.search(pattern, ended.err) is not None
            self.require(said, f"it does not say {pattern!r}", ended)
        self.seen.append("went on")

    def continue_(self, *injections: Injection, says: str = "", only: Collection[str] = ()) -> None:
        """The same command once more, with nothing wrong any more: the outcome is that of the undisturbed run."""
        ended = self.start(*injections)
        self.require(ended.status == 0, f"continued, it ended with status {ended.status}", ended)
        self.equal(only)
        self.require(says in ended.err, f"continued, it does not say {says!r}", ended)

    def continue_without_loss(self) -> None:
        """The same command once more goes on behind the last update that was done."""
        self.continue_()
        if self.repeated():
            self.fail("an update was repeated although it had been saved")

    def equal(self, only: Collection[str] = ()) -> None:
        """Parameters, metrics and all other files are those of the undisturbed run, or some of the files."""
        found, expected = outcome(self.run), self.lab.reference(self.stage, self.launcher)
        chosen = set(only) or found.keys() | expected.keys()
        differs = difference(*({k: v for k, v in files.items() if k in chosen} for files in (found, expected)))
        if differs:
            raise Lost(differs)
        self.seen.append("the same in the end")

    def fail(self, reason: str) -> None:
        raise NotSurvived(reason)

    def require(self, condition: bool, otherwise: str, ended: Ended) -> None:
        """Raise NotSurvived, with the last line that the process wrote, unless the condition holds."""
        if not condition:
            last = ended.err.strip().rsplit("\n", 1)[-1]
            raise NotSurvived(f"{otherwise}; last line: {last[:200]}")

    def repeated(self) -> int:
        """Steps that were done more than once; raises Lost if one had been reported as saved before."""
        done: list[str] = []
        saved: dict[str, int] = {}
        for line in (self.folder / "steps").read_text().splitlines() if (self.folder / "steps").exists() else []:
            verb, stage, step = line.split()
            if verb == "saved":
                saved[stage] = int(step)
            elif int(step) <= saved.get(stage, 0) and not self.may_lose_saved:
                raise Lost(f"step {step} was reported as saved and had to be repeated")
            else:
                done.append(f"{stage} {step}")
        return len(done) - len(set(done))
