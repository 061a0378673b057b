"""Fine-tuning under DeepSpeed's ZeRO-2: every process keeps the weights and steps its own part of the optimizer.

DeepSpeed clips and steps inside the backward pass, and its own checkpoints are pickles. What transformers' Trainer does
around that is changed here; `rlhf.models.private_names` lists what is overridden.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.config.checks import require
from rlhf.parallel.ranks import Ranks
from rlhf.runs.state_files import load_state, save_state
from rlhf.stages.resumable import Resumable

if TYPE_CHECKING:
    from torch import Tensor, nn


class ZeroResumable(Resumable):
    """Overrides for a transformers Trainer on an engine of DeepSpeed's.

    A checkpoint has, beside what `Resumable` writes, a file for each process with its part of the optimizer: the
    moments, and the float32 copy of the parameters that it steps.
    """

    def _prepare_for_training(self: Any, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
        """Wrap model and optimizer, and load our checkpoint, where the Trainer would look for one of DeepSpeed's."""
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)  # type: ignore[misc]
        if resume_from_checkpoint is not None:
            self._load_from_checkpoint(resume_from_checkpoint)
            self._load_optimizer_and_scheduler(resume_from_checkpoint)
        return prepared

    def _get_grad_norm(self: Any, model: "nn.Module", grad_norm: "Tensor | float | None" = None) -> float:
        """The norm before clipping. DeepSpeed leaves out a step whose gradient is not finite; the schedule goes on."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.optimizer.optimizer.overflow = False  # else it would be held for a step, unlike without DeepSpeed
        return norm

    def _save_checkpoint(self: Any, model: "nn.Module", trial: Any) -> None:
        def write(folder: Path) -> None:
            self._write_checkpoint(folder)
            self._write_part(folder)

        if self.is_world_process_zero():
            self.checkpoints.save(self.state.global_step, write)
        else:
            self._write_part(None)

    def _write_part(self: Any, folder: Path | None) -> None:
        """Each process writes its own part into the folder, which the first one knows."""
        ranks = Ranks.of(self.accelerator)
        shared = ranks.first(lambda: folder)
        assert shared is not None
        with ranks.failing_together():
            save_state(shared, part_name(ranks.index), part_of(self.optimizer.optimizer))

    def _optimizer_state(self: Any) -> dict[str, int]:
        return {"parts": Ranks.of(self.accelerator).count}

    def _load_optimizer_state(self: Any, saved: dict[str, Any], folder: Path) -> None:
        ranks = Ranks.of(self.accelerator)
        require(
            saved.get("parts") == ranks.count,
            f"{folder} holds the optimizer in {saved.get('parts', 'no')} parts of ZeRO-2, and this run has "
            f"{ranks.count} processes; launch it as before, or remove that folder to start anew",
        )
        load_part(self.optimizer.optimizer, load_state(folder, part_name(ranks.index)), ranks)


def part_name(rank: int) -> str:
    """Name of the state file of one process's part."""
    return f"optimizer-part-{rank}"


def part_of(optimizer: Any) -> dict[str, Any]:
    """This process's part of an optimizer of ZeRO-2's: moments, and the float32 copy of the parameters."""
    state = optimizer.state_dict()
    return {name: state[name] for name in _saved_names()}


def load_part(optimizer: Any, part: dict[str, Any], ranks: Ranks) -> None:
    """Give it back what `part_of` returned."""
    whole = optimizer.state_dict() | part
    of_all = [whole] * ranks.count  # only the own entry is read
    optimizer.load_state_dict(of_all, load_optimizer_states=True, load_from_fp32_weights=True)


def _saved_names() -> tuple[str, str]:
    from deepspeed.checkpoint.constants import BASE_OPTIMIZER_STATE, SINGLE_PARTITION_OF_FP32_GROUPS

    return BASE_OPTIMIZER_STATE, SINGLE_PARTITION_OF_FP32_GROUPS
