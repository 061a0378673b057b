"""A model measured on held-out data while it trains, and the best one kept."""

import json
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from rlhf.config.evaluation import EARLY_STOPPING, TrainingEvaluation
from rlhf.evaluation.best import Best, Means
from rlhf.parallel.launch import said_once
from rlhf.parallel.ranks import Ranks
from rlhf.report.model_card import add_held_out
from rlhf.runs.files import staged
from rlhf.runs.state_files import untouched_random_state
from rlhf.tracking.progress import ProgressBar
from rlhf.tracking.tracker import Tracker

RECORD_FILE = "held_out.json"
"""In the folder of the best model: how it was found, and all its held-out means."""


class HeldOut:
    """Measures a model before the first step, every so many, and after the last.

    Nothing is learned from it and no random number of the training is used up: a run with evaluations trains bit for
    bit like one without. All ranks call every method at the same steps, and fail together. Every method does nothing
    where there are no settings.

    Args:
        settings: `evaluation` of the stage.
        unit: What the stage counts: update, or step.
        ranks: The processes.
        measure: The means over the held-out data of all ranks; each of them calls it.
        write: Fills a folder with the model as it is; the first rank calls it.
        place: The folder of the best model.
        writing: What all ranks have to be within while the first one writes.
    """

    def __init__(
        self,
        settings: TrainingEvaluation | None,
        unit: str,
        ranks: Ranks,
        measure: Callable[[], Means],
        write: Callable[[Path], object],
        place: Path,
        writing: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.settings, self.ranks, self.measure, self.write, self.place = settings, ranks, measure, write, place
        self.writing = writing
        self.best = Best(settings, unit) if settings else None

    @property
    def stop(self) -> bool:
        """Whether the run should end because the model has ceased to get better."""
        return self.best is not None and self.best.stop

    def found_best(self, step: int) -> bool:
        """Whether the model as it is after this step is the best so far."""
        return self.best is not None and self.best.step == step

    def before_training(self, step: int, tracker: Tracker, bar: ProgressBar) -> None:
        """Measure what a new run begins with, as step 0; in one that goes on, store the best model if a crash did not
        leave the time for it."""
        if step == 0 and self.ranks.is_first:
            shutil.rmtree(self.place, ignore_errors=True)  # of a start that came to nothing
        if self.best is not None and step == 0:
            tracker.log(self.evaluate(step, tracker, bar), step)
        self.keep_best(step)

    def after_step(
        self, step: int, is_last: bool, tracker: Tracker, bar: ProgressBar, counts: bool = True
    ) -> dict[str, float]:
        """What is measured after this step, if it is one to look at, to be logged with its metrics.

        `counts` is False where the model was not trained since the evaluation before.
        """
        if self.settings is None or not (is_last or step % self.settings.every == 0):
            return {}
        metrics = self.evaluate(step, tracker, bar, counts)
        if self.stop and not is_last:
            assert self.best is not None
            tracker.log_warning(EARLY_STOPPING, self.best.stopping(), step)
            bar.say(self.best.stopping())
        return metrics

    def evaluate(self, step: int, tracker: Tracker, bar: ProgressBar, counts: bool = True) -> dict[str, float]:
        """Measure the model and say so in a line."""
        assert self.best is not None
        started = time.monotonic()
        with untouched_random_state():
            means = self.measure()
        seconds = time.monotonic() - started
        with said_once():
            bar.say(self.best.add(step, means, seconds, counts), style="cyan")
        return {f"held_out/{name}": value for name, value in means.items()} | {"time/held_out": seconds}

    def keep_best(self, step: int) -> None:
        """Store the model if it is the best so far; all ranks wait until it is there.

        Called once a checkpoint holds that it is, so that the two agree whenever a run is killed.
        """
        if self.settings is not None and self.settings.keep_best and self.found_best(step):
            with self.writing():
                self.ranks.first(self._write_best)

    def _write_best(self) -> None:
        assert self.best is not None
        with staged(self.place) as staging, untouched_random_state():
            self.write(staging)
            (staging / RECORD_FILE).write_text(json.dumps(self.best.record(), indent=2) + "\n", encoding="utf-8")

    def describe(self, folder: Path) -> None:
        """Put the held-out means of the policy as it is now into its model card, beside those from before."""
        if self.best is not None:
            add_held_out(folder, self.best.first, self.best.last)

    def say_best(self) -> None:
        """Print which model was the best, and where it is."""
        if self.best is not None and self.ranks.is_first:
            place = f"; it is in {self.place}" if self.settings is not None and self.settings.keep_best else ""
            print(f"{self.best.summary()}{place}", flush=True)

    def state_dict(self) -> dict[str, Any] | None:
        """What later evaluations are compared with; None where there are none."""
        return None if self.best is None else self.best.state_dict()

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Go on where `state_dict` was taken."""
        if self.best is not None and state is not None:
            self.best.load_state_dict(state)
