"""How often a stage saves its state, so that the same command continues an interrupted run."""

from dataclasses import dataclass

from rlhf.config.checks import require_finite, require_positive
from rlhf.config.renamed import with_old_names


@with_old_names
@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Checkpoints of a run, in the folder checkpoints/ of its output_dir until the run is finished.

    Args:
        save_steps: Steps from one checkpoint to the next: updates of PPO, optimizer steps of the other stages.
        save_total_limit: How many checkpoints stay on disk.
    """

    save_steps: int = 10
    save_total_limit: int = 2

    def __post_init__(self) -> None:
        require_finite(self)
        require_positive(self, "save_steps", "save_total_limit")
