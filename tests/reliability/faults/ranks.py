"""Two processes of which one crashes, stalls or runs out of memory; signals to those that launched them."""

import functools
import math
import signal
import sys
from collections.abc import Callable, Sequence

from faults.fault import Attack, Fault, once
from faults.inject import Injection
from faults.kills import UPDATE_5
from faults.lab import LAUNCHER, Lab
from faults.numbers import PPO_GRADIENT, skipped
from faults.trial import Trial

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
    trial.continue_without_loss()


def kill_one(trial: Trial, rank: int) -> None:
    dead(trial, {"do": "send_signal", **UPDATE_5, "number": signal.SIGKILL, "rank": rank})


def raise_in_one(trial: Trial, rank: int) -> None:
    failing = {"do": "fail", "at": "rlhf.ppo.trainer:PPOTrainer.score", "nth": 7, "message": "a fault", "rank": rank}
    dead(trial, failing, says="RuntimeError: a fault")


def stall_one(trial: Trial, rank: int) -> None:
    dead(trial, {"do": "limit_stalls", "seconds": STALL_LIMIT}, {"do": "stop_forever", **UPDATE_5, "rank": rank})


def starve_one(trial: Trial, rank: int) -> None:
    dead(trial, {"do": "exhaust_memory", **UPDATE_5, "rank": rank}, says="out of memory in update 5")


def poison_one(trial: Trial) -> None:
    """NaN in the gradient of one process is NaN in the sum: all of them skip the step."""
    skipped(trial, {"do": "poison_gradient", "at": PPO_GRADIENT, "nth": 8, "value": math.nan, "rank": 1})


def signal_launcher(trial: Trial, number: int) -> None:
    """From the first process, in the middle of update 5, to its parent."""
    saved(trial, {"do": "send_signal", **UPDATE_5, "number": number, "to": "parent", "rank": 0})


def starve_the_only_one(trial: Trial) -> None:
    trial.refused(trial.start({"do": "exhaust_memory", **UPDATE_5}), "out of memory in update 5")
    trial.continue_()


def each_rank(attack: Callable[..., None]) -> Callable[[Lab], Sequence[Attack]]:
    return lambda lab: [functools.partial(attack, rank=rank) for rank in (0, 1)]


def faults() -> list[Fault]:
    """All of this kind."""
    return [
        Fault(
            name="out of memory",
            where="ppo, update",
            expected="refused in one line; the same command continues",
            attacks=once(starve_the_only_one),
        ),
        *of_one_process(),
        *signals_to_launchers(),
    ]


def of_one_process() -> list[Fault]:
    """What befalls one of two processes."""
    gone = "the others end, the launcher reports it; the same command continues"
    attacks: list[tuple[str, str, Callable[[Lab], Sequence[Attack]]]] = [
        ("one process killed", gone, each_rank(kill_one)),
        ("one process raises an error", f"it prints it; {gone}", each_rank(raise_in_one)),
        ("one process stops (SIGSTOP)", f"noticed within the limit, here {STALL_LIMIT:.0f} s; {gone}",
         each_rank(stall_one)),
        ("one process out of memory", gone, each_rank(starve_one)),
        ("NaN in the gradient of one process", "all skip the step; parameters stay finite", once(poison_one)),
    ]  # fmt: skip
    return [
        Fault(name=name, where="ppo on two, update", expected=expected, attacks=ways, launcher=LAUNCHER)
        for name, expected, ways in attacks
    ]


def signals_to_launchers() -> list[Fault]:
    """What schedulers and terminals send."""
    expected = "all finish the update, save and end; the same command continues; no update lost"
    launchers = [
        ("SIGTERM to accelerate launch", signal.SIGTERM, LAUNCHER),
        ("SIGINT to accelerate launch", signal.SIGINT, LAUNCHER),
        ("SIGKILL to accelerate launch", signal.SIGKILL, LAUNCHER),
        ("SIGTERM to accelerate launch of one process", signal.SIGTERM, ALONE),
        ("SIGTERM to torchrun", signal.SIGTERM, TORCHRUN),
    ]
    return [
        Fault(
            name=name,
            where="ppo, update",
            expected=expected,
            attacks=once(signal_launcher, number=number),
            launcher=launcher,
        )
        for name, number, launcher in launchers
    ]
