"""SIGKILL: at every moment at which a file changes, and at random ones."""

import contextlib
import functools
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from faults.fault import Attack, Fault
from faults.inject import Injection
from faults.lab import Lab
from faults.trial import NotSurvived, Trial

SEEDS = 20
UPDATE_5 = {"at": "rlhf.ppo.update:ClippedEpochs.gradient", "nth": 9}
"""A moment in the middle of update 5 of 6; the last checkpoint is that of update 4."""
SAME = "dead at once; the same command continues, and ends with the same numbers"


def at_write_points(stage: str, resumed: bool = False, **window: Any) -> Callable[[Lab], Sequence[Attack]]:
    """One attack for every moment at which a disk changes in the window, as an undisturbed run of its own tells."""

    def attacks(lab: Lab) -> Sequence[Attack]:
        counting = Trial(lab, lab.root / "write points" / f"{stage} {window['during'].split('.')[-1]}", stage)
        shutil.rmtree(counting.folder, ignore_errors=True)
        begin_before(counting, resumed)
        counting.start(point_of(counting, window))
        n_points = len((counting.folder / "points").read_text().splitlines())
        points = range(1, n_points + 1)
        return [functools.partial(die_at, window=window, kill_at=number, resumed=resumed) for number in points]

    return attacks


def point_of(trial: Trial, window: dict[str, Any], kill_at: int = 0) -> dict[str, Any]:
    changes = {"root": str(trial.folder), "log": str(trial.folder / "points"), "kill_at": kill_at}
    return {"do": "die_at_write_point", **window, **changes}


def kill_in_update_5(trial: Trial, *before: Injection) -> None:
    """SIGKILL, after what is injected before."""
    trial.killed(trial.start(*before, {"do": "send_signal", **UPDATE_5, "number": signal.SIGKILL}), signal.SIGKILL)


def begin_before(trial: Trial, resumed: bool) -> None:
    """For a fault in a run that is continued: update 5 of a run that is killed in it."""
    if resumed:
        kill_in_update_5(trial)


def die_at(trial: Trial, window: dict[str, Any], kill_at: int, resumed: bool) -> None:
    begin_before(trial, resumed)
    trial.killed(trial.start(point_of(trial, window, kill_at)), signal.SIGKILL)
    trial.continue_()


def at_random(seed: int, trial: Trial) -> None:
    """Twice, at moments of which each part of the run is as likely as any other."""
    moments = random.Random(seed)
    trial.lab.reference(trial.stage, trial.launcher)
    whole = trial.lab.seconds[trial.stage]
    kills = 0
    while kills < 2:
        delay = moments.uniform(0, whole)
        ended = trial.start(meanwhile=functools.partial(kill_later, delay))
        if ended.status == 0:  # it was faster than the undisturbed run; the next moment is in a run of its own
            shutil.rmtree(trial.folder)
            kills = 0
            whole *= 0.8
        elif ended.status == -signal.SIGKILL:
            kills += 1
        else:
            raise NotSurvived(f"it ended with status {ended.status} before it was killed")
    trial.seen.append("dead twice")
    trial.continue_()


def kill_later(delay: float, pid: int) -> None:
    time.sleep(delay)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def randomly(lab: Lab) -> Sequence[Attack]:
    return [functools.partial(at_random, seed) for seed in range(SEEDS)]


def faults() -> list[Fault]:
    """All of this kind."""
    saving = {"during": "rlhf.runs.checkpoints:CheckpointManager.save", "nth": 3}
    windows: list[tuple[str, str, dict[str, Any]]] = [
        ("ppo", "while metrics are opened to go on", {"during": "rlhf.ppo.loop:Tracker", "nth": 1, "resumed": True}),
        ("ppo", "while the folder of a run is opened", {"during": "rlhf.stages.frame:open_run", "nth": 1}),
        ("ppo", "while a rollout is stored", {"during": "rlhf.ppo.inspection:save_rollout", "nth": 2}),
        ("ppo", "while the third checkpoint of two is saved", saving),
        ("ppo", "from the policy's first file to the end", {
            "during": "rlhf.ppo.loop:write_policy", "nth": 1, "to_the_end": True,
        }),
        ("sft", "while the third checkpoint of two is saved", saving),
        ("sft", "from the model's first file to the end", {
            "during": "rlhf.stages.sft:staged", "nth": 1, "to_the_end": True,
        }),
        ("pipeline", "while an evaluation is written", {"during": "rlhf.stages.evaluate:write_atomically", "nth": 2}),
        ("pipeline", "from the summary to the end", {
            "during": "rlhf.stages.pipeline:summarize", "nth": 1, "to_the_end": True,
        }),
    ]  # fmt: skip
    points = [
        Fault(
            name="SIGKILL at each change of a file",
            where=f"{stage}, {where}",
            expected=SAME,
            attacks=at_write_points(stage, **window),
            stage=stage,
        )
        for stage, where, window in windows
    ]
    random_moments = [
        Fault(name=f"SIGKILL twice at random, {SEEDS} seeds", where=stage, expected=SAME, attacks=randomly, stage=stage)
        for stage in ("ppo", "sft", "pipeline")
    ]
    return [*points, *random_moments]
