"""Hugging Face trainers that continue bit for bit: what transformers' Trainer saves and loads, in our checkpoints.

Its own checkpoints are partly pickles and not verified. The overrides below are not promised by transformers:
`rlhf.models.private_names` lists them.
"""

import dataclasses
import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.config.checks import require
from rlhf.errors import UserError
from rlhf.evaluation.held_out import HeldOut
from rlhf.runs.checkpoints import CheckpointManager
from rlhf.runs.state_files import load_state, restore_rng_state, rng_state, save_state

if TYPE_CHECKING:
    from torch import Tensor, nn

MAX_SKIPPED_STEPS = 8
PARAMETERS, TRAINING, TRAINER_STATE = "parameters", "training", "trainer_state.json"


def resumable(trainer_class: type, overrides: "type[Resumable] | None" = None) -> type:
    """A subclass of a Trainer with checkpoints of its attribute `checkpoints`, in which the state of `held_out` is."""
    return type(f"Resumable{trainer_class.__name__}", (overrides or Resumable, trainer_class), {})


class Resumable:
    """Overrides for a transformers Trainer on one device, or on several that hold the same parameters.

    A checkpoint holds the trainable parameters, optimizer, schedule, the trainer's counters, and the random generators
    at two moments: now, and at the start of the epoch, from where its order of the data is drawn once more.
    """

    checkpoints: CheckpointManager
    held_out: HeldOut
    skipped_in_a_row = 0
    fingerprint: dict[str, Any] | None = None

    def create_scheduler(self: Any, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule; a run of one step has no warm-up.

        transformers rounds it up to a step, whose learning rate is 0: nothing would be left.
        """
        if num_training_steps == 1:
            self.args.warmup_steps = 0
        return super().create_scheduler(num_training_steps, optimizer)  # type: ignore[misc]

    def _run_epoch(self: Any, *, epoch: int, **arguments: Any) -> None:
        checkpoint, resumed_epoch = arguments["resume_from_checkpoint"], arguments["epochs_trained"]
        if checkpoint is not None and epoch == resumed_epoch:
            saved = load_state(Path(checkpoint), TRAINING)
            in_the_middle = arguments["steps_trained_in_current_epoch"] > 0
            restore_rng_state(saved["rng_at_epoch_start"] if in_the_middle else saved["rng"])
        self.rng_at_epoch_start = rng_state()
        super()._run_epoch(epoch=epoch, **arguments)  # type: ignore[misc]

    def _get_grad_norm(self: Any, model: "nn.Module", grad_norm: "Tensor | float | None" = None) -> float:
        """The norm before clipping. A step whose gradient is not finite is left out: AdamW would never recover."""
        norm = float(super()._get_grad_norm(model, grad_norm=grad_norm))  # type: ignore[misc]
        self.skipped_in_a_row = 0 if math.isfinite(norm) else self.skipped_in_a_row + 1
        if self.skipped_in_a_row > MAX_SKIPPED_STEPS:
            raise UserError(
                f"the loss or its gradient was not finite in {self.skipped_in_a_row} optimizer steps in a row; lower"
                " learning_rate, or look at the data: the parameters are those from before"
            )
        if self.skipped_in_a_row:
            for parameter in model.parameters():
                parameter.grad = None  # the optimizer passes over it
        return norm

    def log(self: Any, logs: dict[str, float], start_time: float | None = None) -> None:
        """Report, with `skipped_steps` where the step was left out."""
        self._tr_loss.nan_to_num_(nan=0.0)  # the Trainer subtracts it from itself to start again, which keeps a NaN
        super().log(logs | ({"skipped_steps": 1.0} if self.skipped_in_a_row else {}), start_time)  # type: ignore[misc]

    def _send_telemetry(self) -> None:
        """Nothing: TRL would tell Hugging Face which trainer is used; see docs/reference/security.md."""

    def _save_checkpoint(self: Any, model: "nn.Module", trial: Any) -> None:
        if self.is_world_process_zero():
            self.checkpoints.save(self.state.global_step, self._write_checkpoint)

    def _write_checkpoint(self: Any, folder: Path) -> None:
        training = {
            "optimizer": self._optimizer_state(),
            "schedule": self.lr_scheduler.state_dict(),
            "rng": rng_state(),
            "rng_at_epoch_start": self.rng_at_epoch_start,
            "held_out": self.held_out.state_dict(),
            "data": self._data(),
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
            data, now = saved.get("data", self._data()), self._data()  # none of an earlier release
            require(
                data == now,
                f"{checkpoint} was made with other training data ({data['rows']} rows; there are {now['rows']} now); "
                "restore them, or choose another output_dir",
            )
            self._load_optimizer_state(saved["optimizer"], Path(checkpoint))
            self.lr_scheduler.load_state_dict(saved["schedule"])
            self.held_out.load_state_dict(saved.get("held_out"))  # none of an earlier release

    def _data(self: Any) -> dict[str, Any]:
        """What tells the training data from others."""
        if self.fingerprint is None:
            digest = hashlib.sha256()
            for row in self.train_dataset:
                digest.update(repr(sorted(row.items())).encode())
            self.fingerprint = {"rows": len(self.train_dataset), "sha256": digest.hexdigest()}
        return dict(self.fingerprint)

    def _optimizer_state(self: Any) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def _load_optimizer_state(self: Any, saved: dict[str, Any], folder: Path) -> None:
        require(
            "parts" not in saved,
            f"{folder} holds the optimizer in {saved.get('parts')} parts of ZeRO-2, which this run was not launched "
            "with; launch it as before, or remove that folder to start anew",
        )
        self.optimizer.load_state_dict(saved)

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
