"""Two processes of which one crashes, stalls or runs out of memory; signals to those that launched them."""

import functools
import signal
import sys
from collections.abc import Callable, Sequence

from faults.fault import Attack, Fault, once
from faults.inject import Injection
from faults.lab import LAUNCHER, Lab
from faults.trial import Trial

GRADIENT = {"at": "rlhf.optimization:ClippedEpochs.gradient", "nth": 9}  # in update 5
ALONE = [*LAUNCHER, "--num_processes", "1"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
STALL_LIMIT = 5.0
LIMIT = 150.0
"""Seconds for a launcher: to start, to notice, 30 s in which torch ends the others, and as much to spare again."""


def dead(trial: Trial, *injections: Injection, says: str = "") -> None:
    """The launcher reports a failure, nobody is left over, and the same command continues."""
    ended = trial.start(*injections, limit=LIMIT)
    trial.require(ended.status not in (0, None), "the launcher reports success", ended)
    trial.require(says in ended.err, f"nobody says {says!r}", ended)
    trial.seen.append("all ended")
    trial.continue_()


def saved(trial: Trial, *injections: Injection) -> None:
    """All processes finish the update, save and end; nothing is lost."""
    ended = trial.start(*injections, limit=LIMIT)
    trial.require("the same command continues" in ended.out, "nobody says that it was saved", ended)
    trial.seen.append("saved and stopped")
    trial.continue_()
    if trial.repeated():
        trial.fail("an update was repeated although it had been saved")


def kill_one(trial: Trial, rank: int) -> None:
    dead(trial, {"do": "send_signal", **GRADIENT, "number": signal.SIGKILL, "rank": rank})


def raise_in_one(trial: Trial, rank: int) -> None:
    failing = {"do": "fail", "at": "rlhf.trainer:PPOTrainer.score", "nth": 7, "message": "a fault", "rank": rank}
    dead(trial, failing, says="RuntimeError: a fault")


def stall_one(trial: Trial, rank: int) -> None:
    dead(trial, {"do": "limit_stalls", "seconds": STALL_LIMIT}, {"do": "stop_forever", **GRADIENT, "rank": rank})


def starve_one(trial: Trial, rank: int) -> None:
    dead(trial, {"do": "exhaust_memory", **GRADIENT, "rank": rank}, says="out of memory in update 5")


def poison_one(trial: Trial) -> None:
    """NaN in the gradient of one process is NaN in the sum: all of them skip the step."""
    from faults.numbers import PPO_GRADIENT, SKIPPED, finite_rows

    poison = {"do": "poison_gradient", "at": PPO_GRADIENT, "nth": 8, "value": float("nan"), "rank": 1}
    trial.finished(trial.start(poison))
    if [row[SKIPPED["ppo"]] for row in finite_rows(trial)] != [0, 0, 0, 1, 0, 0]:
        trial.fail("the step is not counted as skipped")
    trial.seen.append("one step skipped and counted, parameters finite")


def signal_launcher(trial: Trial, number: int) -> None:
    """From the first process, in the middle of update 5, to its parent."""
    saved(trial, {"do": "send_signal", **GRADIENT, "number": number, "to": "parent", "rank": 0})


def starve_the_only_one(trial: Trial) -> None:
    trial.refused(trial.start({"do": "exhaust_memory", **GRADIENT}), "out of memory in update 5")
    trial.continue_()


def each_rank(attack: Callable[..., None]) -> Callable[[Lab], Sequence[Attack]]:
    return lambda lab: [functools.partial(attack, rank=rank) for rank in (0, 1)]


def faults() -> list[Fault]:
    """All of this kind."""
    gone = "the others end, the launcher reports it; the same command continues"
    stopped = "all finish the update, save and end; the same command continues; no update lost"
    one_of_two = [
        ("one process killed", gone, kill_one),
        ("one process raises an error", f"it prints it; {gone}", raise_in_one),
        ("one process stops (SIGSTOP)", f"noticed within the limit, here {STALL_LIMIT:.0f} s; {gone}", stall_one),
        ("one process out of memory", gone, starve_one),
    ]
    launchers = [
        ("SIGTERM to accelerate launch", signal.SIGTERM, LAUNCHER),
        ("SIGINT to accelerate launch", signal.SIGINT, LAUNCHER),
        ("SIGKILL to accelerate launch", signal.SIGKILL, LAUNCHER),
        ("SIGTERM to accelerate launch of one process", signal.SIGTERM, ALONE),
        ("SIGTERM to torchrun", signal.SIGTERM, TORCHRUN),
    ]
    return [
        Fault(
            name="out of memory",
            where="ppo, update",
            expected="refused in one line; the same command continues",
            attacks=once(starve_the_only_one),
        ),
        *(
            Fault(name=name, where="ppo on two, update", expected=e, attacks=each_rank(attack), launcher=LAUNCHER)
            for name, e, attack in one_of_two
        ),
        Fault(
            name="NaN in the gradient of one process",
            where="ppo on two, update",
            expected="all skip the step; parameters stay finite",
            attacks=once(poison_one),
            launcher=LAUNCHER,
        ),
        *(
            Fault(
                name=name,
                where="ppo, update",
                expected=stopped,
                attacks=once(functools.partial(signal_launcher, number=number)),
                launcher=launcher,
            )
            for name, number, launcher in launchers
        ),
    ]
