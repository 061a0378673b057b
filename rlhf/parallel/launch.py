"""How this process was started: alone, or as one of several by `accelerate launch`, some of whose ways are refused."""

import atexit
import contextlib
import ctypes
import gc
import importlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from rlhf.config.checks import require
from rlhf.errors import OtherRankError, UserError
from rlhf.parallel.zero import require_zero2, zero_backend

if TYPE_CHECKING:
    from accelerate import PartialState

STALL_LIMIT = timedelta(minutes=30)
"""How long a process waits for the others, for example for a slow reward, before it gives up."""

SPEAKING_SECONDS = 30.0

SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux


def world_size() -> int:
    """Processes that the launcher has started, on all machines; some clusters set WORLD_SIZE without launching any."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def rank() -> int:
    """Which of them this one is."""
    return int(os.environ.get("RANK", "0"))


def launched_by_accelerate() -> bool:
    """Whether `accelerate launch` has started this process."""
    return "ACCELERATE_MIXED_PRECISION" in os.environ


def engine() -> str:
    """What accelerate was told to run several processes with: ddp, fsdp or deepspeed."""
    for name in ("fsdp", "deepspeed"):
        if os.environ.get(f"ACCELERATE_USE_{name.upper()}", "").lower() == "true":
            return name
    return "ddp"


def gathers_between_updates() -> bool:
    """Whether fsdp_reshard_after_forward is false: between updates a divided base is gathered, once, for all passes."""
    return os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() == "false"


def join_processes(processes: int | None) -> "PartialState":
    """Meet the other processes; from here on each waits for the others for up to STALL_LIMIT.

    Raises UserError if not all that were launched would take part, or `processes` is another number than theirs.
    """
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU")
    require(
        not (on_cpu and launched_by_accelerate() and "MASTER_ADDR" in os.environ and "RANK" not in os.environ),
        "accelerate launch was asked for several CPU processes and has started one; "
        "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu starts them all (see configs/accelerate/cpu_2.yaml)",
    )
    if world_size() > 1:
        _leave_gloo_at_exit()
    own_backend = {}
    if engine() == "deepspeed":
        require_zero2(on_cpu)
        own_backend = zero_backend()
    state = PartialState(cpu=on_cpu, timeout=STALL_LIMIT, **own_backend)
    require(
        state.num_processes == world_size(),
        f"{world_size()} processes were launched, but without a GPU each would train on its own; "
        "set ACCELERATE_USE_CPU=true (see configs/accelerate/cpu_2.yaml)",
    )
    require(
        processes in (None, state.num_processes),
        f"num_processes is {processes}, but {state.num_processes} were launched (see configs/accelerate/)",
    )
    return state


def _leave_gloo_at_exit() -> None:
    """Have the threads with which gloo exchanges tensors end before Python does.

    One that gives a tensor back while Python ends aborts the process ("terminate called without an active exception").
    NCCL has no such threads, and its group must not be left by one rank that failed alone: that waits for the others.
    """
    import torch

    if not torch.distributed.is_initialized():
        # DDP imports this module, whose functions would then hold the group, and with it the threads, as a default.
        importlib.import_module("torch.distributed.nn")
    atexit.unregister(_leave_gloo)  # else once for every stage that a script runs
    atexit.register(_leave_gloo)


def _leave_gloo() -> None:
    import torch

    if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
        gc.collect()  # a DDP wrapper in a cycle would hold the group too
        torch.distributed.destroy_process_group()


def require_data_parallel(stage: str, or_zero2: bool = False) -> None:
    """Raise UserError if accelerate was told to divide the model among processes."""
    require(
        engine() == "ddp" or (or_zero2 and engine() == "deepspeed"),
        f"{stage} keeps the whole model on every process, but accelerate was told to use {engine()}; "
        "use configs/accelerate/multi_gpu.yaml",
    )


def require_plain_precision() -> None:
    """Raise UserError if accelerate was told a precision of its own."""
    told = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    require(told == "no", f"accelerate's mixed_precision is {told}; model.dtype sets the precision: make it 'no'")


def require_no_deepspeed() -> None:
    """Raise UserError for the engine that PPO cannot run on: it would take the gradients away."""
    require(
        engine() != "deepspeed",
        "ppo does not run on deepspeed; to divide the base use FSDP2, configs/accelerate/fsdp2.yaml",
    )


def require_fsdp2_or_ddp() -> None:
    """Raise UserError for what PPO cannot divide its base with."""
    version = os.environ.get("FSDP_VERSION", "1")
    require(
        engine() == "ddp" or version == "2",
        f"accelerate was told to use fsdp version {version}; ppo runs on version 2 (configs/accelerate/fsdp2.yaml)",
    )


def require_one_process(command: str) -> None:
    """Raise UserError if the launcher has started several of a command that would only overwrite its own files."""
    require(
        world_size() == 1,
        f"{command} runs on one process, but {world_size()} were launched; start it without accelerate launch",
    )


@contextlib.contextmanager
def said_once() -> Iterator[None]:
    """An error that all processes find is printed by rank 0; the others raise OtherRankError."""
    try:
        yield
    except UserError as error:
        raise error if rank() == 0 else OtherRankError(str(error)) from error


def let_others_speak() -> None:
    """Wait for the process that prints the error: the launcher ends all of them as soon as one has ended."""
    time.sleep(SPEAKING_SECONDS)


def end_with_launcher() -> None:
    """Have this process told to stop (SIGTERM) when `accelerate launch` dies; Linux only, elsewhere it lives on.

    A launcher of one process dies of a SIGTERM without passing it on, and the run would go on unattended.
    """
    if launched_by_accelerate() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
