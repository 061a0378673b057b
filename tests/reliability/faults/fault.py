"""A row of the table: a fault, where it strikes, what is promised, and what was seen."""

import functools
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.lab import Lab
from faults.trial import Lost, NotSurvived, Trial

Attack = Callable[[Trial], None]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A named fault.

    Args:
        name: What goes wrong.
        where: In which part of which command.
        expected: What is promised.
        attacks: Ways or moments in which it is injected, each into a run of its own; each raises NotSurvived unless
            the promise is kept.
        stage: The command.
        launcher: What starts its processes; nothing for a single one.
    """

    name: str
    where: str
    expected: str
    attacks: Callable[[Lab], Sequence[Attack]]
    stage: str = "ppo"
    launcher: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was seen of a fault.

    Attributes:
        injected: How often it was injected.
        survived: How many of these times the promise was kept.
        lost: How many times something was gone for good, or other than in the undisturbed run.
        repeated: Most updates that had to be done again after a single injection.
        seen: What happened, in words.
    """

    fault: Fault
    injected: int
    survived: int
    lost: int
    repeated: int
    seen: str
    seconds: float

    @property
    def ok(self) -> bool:
        return self.survived == self.injected


def once(attack: Callable[..., None], **arguments: Any) -> Callable[[Lab], Sequence[Attack]]:
    """A fault that is injected in one way only, by `attack(trial, **arguments)`."""
    return lambda lab: [functools.partial(attack, **arguments)]


def inject(fault: Fault, lab: Lab, folder: Path) -> Result:
    """Inject a fault in all its ways, one after the other."""
    started = time.monotonic()
    seen, repeated, lost = Counter[str](), 0, 0
    failures: list[str] = []
    trials = list(_trials(fault, lab, folder))
    for attack, trial in trials:
        try:
            attack(trial)
            repeated = max(repeated, trial.repeated())
            seen[", ".join(trial.seen)] += 1
        except Exception as failure:
            failures.append(str(failure) if isinstance(failure, NotSurvived) else f"not injected: {failure!r}")
            lost += isinstance(failure, Lost)
        else:
            shutil.rmtree(trial.folder, ignore_errors=True)
    words = failures[0] if failures else "; ".join(_counted(what, count) for what, count in seen.most_common())
    return Result(
        fault=fault,
        injected=len(trials),
        survived=len(trials) - len(failures),
        lost=lost,
        repeated=repeated,
        seen=words,
        seconds=time.monotonic() - started,
    )


def _trials(fault: Fault, lab: Lab, folder: Path) -> Iterator[tuple[Attack, Trial]]:
    for number, attack in enumerate(fault.attacks(lab)):
        yield attack, Trial(lab, folder / str(number), fault.stage, list(fault.launcher))


def _counted(what: str, count: int) -> str:
    return what if count == 1 else f"{what} ({count} times)"
