"""How the threads of one process wait for each other when they are not alone on the machine.

After every operation torch's threads wait for the slowest of them. By default they wait in a loop, which is fast where
each has a core of its own; where other processes compute, they burn the time that the one they wait for would need.
Asleep they lose some speed on an idle machine and hardly any on a busy one. The results are the same bits.
"""

import os
import sys

CHOSEN_BY_HAND = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""What says how to wait, to the OpenMP of GCC, Intel and LLVM; read when torch is loaded."""
LOOK_SECONDS = 0.1
FREE_FOR_OTHERS = 0.5
"""Cores that may be in use elsewhere: less than a process that computes takes, more than an idle desktop does."""


def wait_beside_others() -> None:
    """Let threads sleep while they wait if other processes use the cores of this one now.

    Takes LOOK_SECONDS. Without effect once torch is loaded, and where the environment says how to wait.
    """
    if "torch" in sys.modules or any(name in os.environ for name in CHOSEN_BY_HAND):
        return
    if cores_in_use() > FREE_FOR_OTHERS:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def cores_in_use() -> float:
    """How many of the cores that this process may use others do, at the moment."""
    import psutil  # type: ignore[import-untyped]

    percent: list[float] = psutil.cpu_percent(LOOK_SECONDS, percpu=True)
    ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(percent))
    return sum(percent[core] for core in ours if core < len(percent)) / 100
