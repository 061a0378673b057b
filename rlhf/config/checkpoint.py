"""How often a stage saves its state, so that the same command continues an interrupted run."""

from dataclasses import dataclass

from rlhf.config.checks import require_finite, require_positive


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Checkpoints of a run, in the folder checkpoints/ of its output_dir until the run is finished.

    Args:
        every: Steps from one checkpoint to the next: updates of PPO, optimizer steps of the other stages.
        keep: How many checkpoints stay on disk.
    """

    every: int = 10
    keep: int = 2

    def __post_init__(self) -> None:
        require_finite(self)
        require_positive(self, "every", "keep")
