"""Processes forked from one that has imported everything and does nothing else: that saves 5 s each."""

import multiprocessing
import multiprocessing.connection
import threading
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

PRELOADED = [
    "rlhf.stages.pipeline",
    "rlhf.stages.reward_model",
    "peft",
    "datasets",
    "trl.trainer.sft_trainer",
    "faults.inject",
]

_starter = multiprocessing.get_context("forkserver")
_starter.set_forkserver_preload(PRELOADED)
_one_at_a_time = threading.Lock()
"""start() reads the exit statuses of all processes, each of which can be read once: two readers would make one 255."""


def fork(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A process that has begun to run the function."""
    process = _starter.Process(target=target, args=arguments)
    with _one_at_a_time:
        process.start()
    return process


def wait_for(process: BaseProcess, seconds: float | None = None) -> int | None:
    """Exit status of a process, None if it has not ended within the time."""
    multiprocessing.connection.wait([process.sentinel], seconds)
    with _one_at_a_time:
        return process.exitcode
