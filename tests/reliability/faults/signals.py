"""SIGTERM and SIGINT in every phase of a run."""

import signal
from collections.abc import Callable, Mapping

from faults.fault import Fault, once
from faults.trial import Trial

PHASES = {
    "ppo": {  # in update 4 of 6
        "rollout": ("rlhf.sampling.decode:choose", 44),
        "scoring": ("rlhf.ppo.trainer:PPOTrainer.score", 6),
        "update": ("rlhf.ppo.update:ClippedEpochs.gradient", 8),
        "checkpoint": ("rlhf.ppo.state:save_state", 2),
    },
    "sft": {  # in step 6 of 8
        "update": ("accelerate:Accelerator.backward", 11),
        "checkpoint": ("rlhf.stages.resumable:save_state", 6),
    },
}
OUTSIDE = {
    "pipeline": {
        "evaluation of SFT": ("rlhf.stages.evaluate:_rows", 1),
        "evaluation of PPO": ("rlhf.stages.evaluate:_rows", 2),
        "report": ("rlhf.stages.pipeline:summarize", 1),
    },
    "ppo": {
        "loading the model": ("rlhf.stages.ppo:load_causal_lm", 1),
        "writing the policy": ("rlhf.ppo.loop:staged", 1),
    },
}


def stop_in_phase(trial: Trial, at: str, nth: int, number: int) -> None:
    trial.stopped(trial.start({"do": "send_signal", "at": at, "nth": nth, "number": number}))
    trial.continue_without_loss()


def end_outside(trial: Trial, at: str, nth: int, number: int) -> None:
    """Where there is nothing to save the process simply ends."""
    ended = trial.start({"do": "send_signal", "at": at, "nth": nth, "number": number})
    if number == signal.SIGTERM:
        trial.killed(ended, number)
    else:
        trial.interrupted(ended)
    trial.continue_()


def interrupt_twice(trial: Trial) -> None:
    at, nth = PHASES["ppo"]["update"]
    twice = [{"do": "send_signal", "at": at, "nth": n, "number": signal.SIGINT} for n in (nth, nth)]
    trial.interrupted(trial.start(*twice))
    trial.continue_()


def faults() -> list[Fault]:
    """All of this kind."""
    saved = "saved after the step at hand, exit status 0; the same command continues; no update lost"
    twice = Fault(
        name="SIGINT twice",
        where="ppo, update",
        expected="ends at once without saving; continues from the last checkpoint",
        attacks=once(interrupt_twice),
    )
    return [
        *in_each(PHASES, saved, stop_in_phase),
        *in_each(OUTSIDE, "ends at once; the same command continues", end_outside),
        twice,
    ]


def in_each(
    phases: Mapping[str, Mapping[str, tuple[str, int]]], expected: str, attack: Callable[..., None]
) -> list[Fault]:
    """Both signals in each phase of each stage."""
    return [
        Fault(
            name=number.name,
            where=f"{stage}, {phase}",
            expected=expected,
            attacks=once(attack, at=at, nth=nth, number=number),
            stage=stage,
        )
        for stage, moments in phases.items()
        for phase, (at, nth) in moments.items()
        for number in (signal.SIGTERM, signal.SIGINT)
    ]
