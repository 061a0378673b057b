"""What each process does in tests/test_zero.py: argv is what happens to it, at which step, and a command of rlhf's."""

import os
import signal
import sys

import torch
import transformers

from rlhf import cli
from rlhf.parallel.launch import rank
from rlhf.tracking.tracker import Tracker

torch.set_num_threads(1)


def stop_after(step: int) -> None:
    """All processes are asked to stop once this step has been reported; they do after the next."""
    log = Tracker.log

    def wrapped(self, metrics, number):
        log(self, metrics, number)
        if number == step:
            os.kill(os.getpid(), signal.SIGTERM)

    Tracker.log = wrapped


def nan_in(step: int) -> None:
    """The loss that the last process finds in this step is NaN."""
    compute_loss = transformers.Trainer.compute_loss

    def wrapped(self, *args, **kwargs):
        result = compute_loss(self, *args, **kwargs)
        if self.state.global_step + 1 != step or rank() == 0:
            return result
        return (result[0] * torch.nan, *result[1:]) if isinstance(result, tuple) else result * torch.nan

    transformers.Trainer.compute_loss = wrapped


if __name__ == "__main__":
    what, step, *command = sys.argv[1:]
    if what != "nothing":
        {"stop": stop_after, "nan": nan_in}[what](int(step))
    cli.main(command)
