"""The best model of a run by a held-out metric, and when to stop waiting for a better one."""

import math
from dataclasses import asdict
from typing import Any

from rlhf.config.evaluation import LOWER_IS_BETTER, TrainingEvaluation
from rlhf.errors import UserError

Means = dict[str, float]


class Best:
    """Reads the held-out means of a run as they come.

    Args:
        settings: The metric, and the patience with it.
        unit: What the stage counts: update, or step.

    Attributes:
        step: When the metric was at its best; the first of several equal ones. None before the first evaluation.
        value: The metric then.
        waited: Evaluations since then; those that say nothing of training (`add`) do not count.
        first, last: All held-out means at the first and the latest evaluation.
        last_step: When that one was.
    """

    def __init__(self, settings: TrainingEvaluation, unit: str) -> None:
        self.settings, self.unit = settings, unit
        self.step: int | None = None
        self.value = math.nan
        self.waited = 0
        self.first: Means = {}
        self.last: Means = {}
        self.last_step: int | None = None

    @property
    def stop(self) -> bool:
        """Whether the run should end: there was no improvement for as long as the patience lasts."""
        return self.settings.patience is not None and self.waited >= self.settings.patience

    def add(self, step: int, means: Means, seconds: float, counts: bool = True) -> str:
        """Take note of an evaluation; returns a line about it for the terminal.

        An evaluation that does not count, because the model was not trained since the one before, does not try the
        patience. Raises UserError where the metric is not among the means of the first evaluation; in a later one,
        where it applies to no response, it is NaN, which is no improvement.
        """
        metric = self.settings.metric
        if metric not in means and self.step is None:
            raise UserError(
                f"evaluation.metric is {metric!r}, but nothing was measured under that name: it applies to none of the "
                f"held-out rows; measured were: {', '.join(means)}"
            )
        self.first, self.last, self.last_step = self.first or means, means, step
        before = f"best {self.value:.3f} after {self.unit} {self.step}"
        value = means.get(metric, math.nan)
        if self._improves(value):
            self.step, self.value, self.waited, before = step, value, 0, "best so far"
        elif counts:
            self.waited += 1
        others = [f"{name} {mean:.3f}" for name, mean in means.items() if name != metric]
        return "  ".join(
            [f"held out after {self.unit} {step}: {metric} {value:.3f} ({before})", *others, f"{seconds:.1f} s"]
        )

    def _improves(self, value: float) -> bool:
        if self.step is None or math.isnan(self.value):
            return self.step is None or not math.isnan(value)
        return value < self.value if self.settings.metric in LOWER_IS_BETTER else value > self.value

    def stopping(self) -> str:
        """Why the run ends early."""
        return (
            f"{self.unit} {self.last_step}: held-out {self.settings.metric} has not improved on {self.value:.4g} "
            f"({self.unit} {self.step}) in {self.waited} evaluations; evaluation.patience ends the run here"
        )

    def summary(self) -> str:
        """Which step was the best, and what it is worth."""
        metric = self.settings.metric
        ends = f"{self.first[metric]:.4g} before training, {self.last.get(metric, math.nan):.4g} at the end"
        return f"held-out {metric} was best after {self.unit} {self.step}: {self.value:.4g} ({ends})"

    def state_dict(self) -> dict[str, Any]:
        """Everything that later evaluations are compared with."""
        return {name: value for name, value in vars(self).items() if name not in ("settings", "unit")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        vars(self).update(state)

    def record(self) -> dict[str, Any]:
        """What is stored beside the best model: how it was found, and all its held-out means."""
        return {"step": self.step, **asdict(self.settings), "means": self.last}
