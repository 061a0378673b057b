"""SIGTERM and SIGINT in every phase of a run."""

import functools
import signal

from faults.fault import Fault, once
from faults.trial import Trial

PHASES = {
    "ppo": {  # in update 4 of 6
        "rollout": ("rlhf.generation:choose", 44),
        "scoring": ("rlhf.trainer:PPOTrainer.score", 6),
        "update": ("rlhf.optimization:ClippedEpochs.gradient", 8),
        "checkpoint": ("rlhf.resume:save_state", 2),
    },
    "sft": {  # in step 6 of 8
        "update": ("accelerate:Accelerator.backward", 11),
        "checkpoint": ("rlhf.resumable:save_state", 6),
    },
}
OUTSIDE = {
    "pipeline": {
        "evaluation of SFT": ("rlhf.evaluate:_rows", 1),
        "evaluation of PPO": ("rlhf.evaluate:_rows", 2),
        "report": ("rlhf.pipeline:summarise", 1),
    },
    "ppo": {"loading the model": ("rlhf.ppo:load_causal_lm", 1), "writing the policy": ("rlhf.training:staged", 1)},
}


def stop_in_phase(trial: Trial, at: str, nth: int, number: int) -> None:
    trial.stopped(trial.start({"do": "send_signal", "at": at, "nth": nth, "number": number}))
    trial.continue_()
    if trial.repeated():
        trial.fail("an update was repeated although it had been saved")


def end_outside(trial: Trial, at: str, nth: int, number: int) -> None:
    """Where there is nothing to save the process simply ends."""
    ended = trial.start({"do": "send_signal", "at": at, "nth": nth, "number": number})
    if number == signal.SIGTERM:
        trial.killed(ended, number)
    else:
        trial.require(ended.status == 130 and "error: interrupted" in ended.err, "no one line", ended)
        trial.seen.append("interrupted")
    trial.continue_()


def interrupt_twice(trial: Trial) -> None:
    at, nth = PHASES["ppo"]["update"]
    twice = [{"do": "send_signal", "at": at, "nth": n, "number": signal.SIGINT} for n in (nth, nth)]
    ended = trial.start(*twice)
    trial.require(ended.status == 130 and "error: interrupted" in ended.err, "no one line", ended)
    trial.seen.append("interrupted")
    trial.continue_()


def faults() -> list[Fault]:
    """All of this kind."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    within = [
        Fault(
            name=number.name,
            where=f"{stage}, {phase}",
            expected="saved after the step at hand, exit status 0; the same command continues; no update lost",
            attacks=once(functools.partial(stop_in_phase, at=at, nth=nth, number=number)),
            stage=stage,
        )
        for stage, phases in PHASES.items()
        for phase, (at, nth) in phases.items()
        for number in numbers
    ]
    outside = [
        Fault(
            name=number.name,
            where=f"{stage}, {phase}",
            expected="ends at once; the same command continues",
            attacks=once(functools.partial(end_outside, at=at, nth=nth, number=number)),
            stage=stage,
        )
        for stage, phases in OUTSIDE.items()
        for phase, (at, nth) in phases.items()
        for number in numbers
    ]
    twice = Fault(
        name="SIGINT twice",
        where="ppo, update",
        expected="ends at once without saving; continues from the last checkpoint",
        attacks=once(interrupt_twice),
    )
    return [*within, *outside, twice]
