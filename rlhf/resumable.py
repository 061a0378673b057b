"""Hugging Face trainers that continue bit for bit: what transformers' Trainer saves and loads, in our checkpoints.

Its own checkpoints are partly pickles and not verified, and with batches grouped by length they continue with another
order of the data in every epoch but the first. The overrides below are hooks of transformers 5.23.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.checkpoint_manager import CheckpointManager
from rlhf.errors import UserError
from rlhf.state_files import load_state, restore_rng_state, rng_state, save_state

if TYPE_CHECKING:
    from torch import Tensor, nn

PARAMETERS, TRAINING, TRAINER_STATE = "parameters", "training", "trainer_state.json"


def resumable(trainer_class: type) -> type:
    """A subclass of a Trainer whose checkpoints are those of its attribute `checkpoints`."""
    return type(f"Resumable{trainer_class.__name__}", (Resumable, trainer_class), {})


class Resumable:
    """Overrides for a transformers Trainer on one device, or on several that hold the same parameters.

    A checkpoint holds the trainable parameters, optimizer, schedule, the trainer's counters, and the random generators
    at two moments: now, and at the start of the epoch, from where its order of the data is drawn once more.
    """

    checkpoints: CheckpointManager

    def _get_train_sampler(self: Any, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)  # type: ignore[misc]
        if self.args.train_sampling_strategy == "group_by_length":  # what all processes together take, as one would
            sampler.batch_size *= self.args.world_size
        return sampler

    def _run_epoch(self: Any, *, epoch: int, **arguments: Any) -> None:
        checkpoint, resumed_epoch = arguments["resume_from_checkpoint"], arguments["epochs_trained"]
        if checkpoint is not None and epoch == resumed_epoch:
            saved = load_state(Path(checkpoint), TRAINING)
            in_the_middle = arguments["steps_trained_in_current_epoch"] > 0
            restore_rng_state(saved["rng_at_epoch_start"] if in_the_middle else saved["rng"])
        self.rng_at_epoch_start = rng_state()
        super()._run_epoch(epoch=epoch, **arguments)  # type: ignore[misc]

    def _save_checkpoint(self: Any, model: "nn.Module", trial: Any) -> None:
        if self.is_world_process_zero():
            self.checkpoints.save(self.state.global_step, self._write_checkpoint)

    def _write_checkpoint(self: Any, folder: Path) -> None:
        training = {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.lr_scheduler.state_dict(),
            "rng": rng_state(),
            "rng_at_epoch_start": self.rng_at_epoch_start,
        }
        save_state(folder, PARAMETERS, trainable(self.model))
        save_state(folder, TRAINING, training)
        dataclasses.replace(self.state, log_history=[]).save_to_json(folder / TRAINER_STATE)

    def _load_from_checkpoint(self: Any, resume_from_checkpoint: str, model: "nn.Module | None" = None) -> None:
        folder = Path(resume_from_checkpoint)
        load_parameters(trainable(self.model), load_state(folder, PARAMETERS), folder)

    def _load_optimizer_and_scheduler(self: Any, checkpoint: str | None) -> None:
        if checkpoint is not None:
            saved = load_state(Path(checkpoint), TRAINING)
            self.optimizer.load_state_dict(saved["optimizer"])
            self.lr_scheduler.load_state_dict(saved["schedule"])

    def _load_rng_state(self: Any, checkpoint: str | None) -> None:
        if checkpoint is not None:
            restore_rng_state(load_state(Path(checkpoint), TRAINING)["rng"])


def trainable(model: "nn.Module") -> "dict[str, Tensor]":
    """The parameters that training changes, by name."""
    return {name: parameter.data for name, parameter in model.named_parameters() if parameter.requires_grad}


def load_parameters(parameters: "dict[str, Tensor]", saved: "dict[str, Tensor]", checkpoint: Path) -> None:
    """Copy saved values into parameters; raises UserError unless names, shapes and types are the same."""
    for name in sorted(parameters.keys() | saved.keys()):
        here, there = (_describe(tensors.get(name)) for tensors in (parameters, saved))
        if here != there:
            raise UserError(
                f"{checkpoint} does not fit this run: parameter {name!r} is {there} there and {here} here; the model"
                " that training starts from has changed: put it back, or remove that folder to start anew"
            )
    for name, parameter in parameters.items():
        parameter.copy_(saved[name])


def _describe(tensor: "Tensor | None") -> str:
    return "missing" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"
