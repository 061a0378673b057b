"""The trackers that accelerate knows beside W&B and TensorBoard, as one more mirror of a run: metrics and config."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf.config import TrackingConfig

Row = dict[str, Any]


class Other:
    """A tracker of accelerate's; it shows the metrics and the settings, not the samples.

    Args:
        name: What accelerate calls it: mlflow, trackio, ...
        folder: Of the run; a tracker that writes files writes them here.
        stage: ppo, sft or reward.
        settings: wandb_project is the name of the project (of MLflow: the experiment).
        config: Shown beside the metrics, one level deep: `ppo.batch_size`.
    """

    def __init__(self, name: str, folder: Path, stage: str, settings: TrackingConfig, config: Row) -> None:
        from accelerate import Accelerator

        self.name = name
        accelerator = Accelerator(log_with=name, project_dir=str(folder))
        accelerator.init_trackers(settings.wandb_project, config={"stage": stage, **flat(config)})
        [self.tracker] = accelerator.trackers

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.tracker.log(metrics, step=step)

    def show_samples(self, rows: Sequence[Row], step: int) -> None:
        """Nothing: samples.jsonl can be read."""

    def show_inspected(self, rows: Sequence[Row], step: int) -> None:
        """Likewise."""

    def warn(self, name: str, message: str, step: int) -> None:
        """Nothing: warnings.jsonl has it."""

    def finish(self, failed: bool) -> None:
        self.tracker.finish()


def flat(config: Row, path: str = "") -> dict[str, str | int | float | bool]:
    """Nested settings under dotted names; a list as text, None left out."""
    found: dict[str, str | int | float | bool] = {}
    for key, value in config.items():
        name = f"{path}{key}"
        if isinstance(value, dict):
            found |= flat(value, f"{name}.")
        elif value is not None:
            found[name] = value if isinstance(value, str | int | float | bool) else str(value)
    return found
