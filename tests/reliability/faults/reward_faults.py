"""Rewards that misbehave, and processes they work in that are killed."""

import os
import signal
import time
from collections.abc import Callable

from faults.fault import Fault, once
from faults.poison import MISBEHAVIORS
from faults.trial import Trial

BATCH = 6
"""The call of the reward in update 4: responses that are followed are scored in updates 1 and 3."""
MESSAGES = {
    "raises": "reward 'count_e' raised ConnectionError: the judge has gone away",
    "too few": "returned 7 scores for 8 samples",
    "None for the batch": "returned a NoneType instead of a list",
    "strings": "a str, as a score",
    "nan": "returned the score nan",
    "inf": "returned the score inf",
}
TIME_LIMIT = 0.1


def refused(trial: Trial, misbehavior: str) -> None:
    injection = {"do": "poison_reward", "nth": BATCH, "misbehavior": misbehavior}
    trial.refused(trial.start(injection), MESSAGES[misbehavior])
    trial.continue_()


def none_for_a_sample(trial: Trial) -> None:
    """It says that the reward does not apply: no fault, as the contract has it."""
    trial.finished(trial.start({"do": "poison_reward", "nth": BATCH, "misbehavior": "None for a sample"}))


def endless_with_limit(trial: Trial, misbehavior: str) -> None:
    trial.changes["rewards"] = [*trial.lab.config("ppo")["rewards"]]
    trial.changes["rewards"][0]["timeout"] = TIME_LIMIT
    injection = {"do": "poison_reward", "nth": BATCH, "misbehavior": misbehavior}
    trial.refused(trial.start(injection, limit=30), "ran out of time: more than 0.1 s for one completion")
    trial.continue_()


def endless_without_limit(trial: Trial, misbehavior: str) -> None:
    """Nobody has set a limit, so the user loses patience: Ctrl-C twice."""

    def ctrl_c_twice(pid: int) -> None:
        for _ in range(2):
            time.sleep(5)
            os.kill(pid, signal.SIGINT)

    injection = {"do": "poison_reward", "nth": BATCH, "misbehavior": misbehavior}
    ended = trial.start(injection, limit=20, meanwhile=ctrl_c_twice)
    trial.interrupted(ended)
    trial.continue_()


def worker_killed(trial: Trial) -> None:
    kill = {"do": "kill_children", "at": "faults.rewards:CountEInWorkers.__call__", "nth": BATCH, "named": ""}
    ended = trial.start(kill, {"do": "replace_reward", "by": "CountEInWorkers"})
    trial.refused(ended, "reward 'count_e' raised BrokenProcessPool")
    trial.continue_()


def render_worker_killed(trial: Trial) -> None:
    """A sandbox that dies is replaced, and what it was at is rendered once more."""
    kill = {"do": "kill_children", "at": "faults.rewards:RenderedE.__call__", "nth": BATCH, "named": "worker"}
    trial.finished(trial.start(kill, {"do": "replace_reward", "by": "RenderedE"}))
    trial.equal()


def scoring(name: str, expected: str, attack: Callable[..., None], **given: str) -> Fault:
    return Fault(name=name, where="ppo, scoring", expected=expected, attacks=once(attack, **given))


def faults() -> list[Fault]:
    """All of this kind."""
    one_line = "refused in one line that names the sample; the same command continues"
    names = {"nan": "returns NaN", "inf": "returns Inf", "raises": "raises"}
    wrong = [
        scoring(f"reward {names.get(how, f'returns {how}')}", one_line, refused, misbehavior=how)
        for how in MISBEHAVIORS
        if how in MESSAGES
    ]
    in_time = "refused in one line in time; the same command continues"
    at_once = "Ctrl-C twice ends it at once; the same command continues"
    endless = [
        scoring(f"reward {how}, {limit}", expected, attack, misbehavior=how)
        for how in ("hangs", "computes forever")
        for limit, expected, attack in (
            ("timeout set", in_time, endless_with_limit),
            ("no timeout", at_once, endless_without_limit),
        )
    ]
    in_one_line = "refused in one line; the same command continues"
    replaced = "replaced; the run goes on with the same numbers"
    return [
        *wrong,
        *endless,
        scoring("reward returns None for a sample", "does not apply to it: the run goes on", none_for_a_sample),
        scoring("reward's worker killed", in_one_line, worker_killed),
        scoring("render workers killed", replaced, render_worker_killed),
    ]
