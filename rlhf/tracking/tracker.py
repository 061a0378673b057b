"""Metrics and samples: metrics.jsonl is the source of truth, W&B and TensorBoard mirror it."""

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rlhf.config import TrackingConfig
from rlhf.config.secrets import mask_secrets, mask_text
from rlhf.errors import visible, with_kind
from rlhf.extras import is_installed
from rlhf.runs.folder import METRICS_FILE, SAMPLES_FILE, WARNINGS_FILE, versions
from rlhf.tracking.mirrors import Mirror, Row, TensorBoard, Wandb, require_mirrors, wandb_is_off
from rlhf.tracking.other import Other
from rlhf.tracking.row_files import RowFile


class Tracker:
    """Writes the metrics and samples of one run; a context manager, so that a failing run is closed too.

    Args:
        folder: metrics.jsonl, samples.jsonl, warnings.jsonl and tensorboard/ land here.
        stage: ppo, sft or reward; the name of the W&B job.
        settings: Which mirrors to feed.
        config: The resolved config, shown by the mirrors with secrets masked.
        active: False on ranks other than the first, where every call does nothing.
        resumed_at: The step that the run goes on from: rows of later steps are removed, the rest is kept. None
            starts afresh.

    Raises UserError, on every rank, for a mirror that is asked for by name and not installed.
    """

    def __init__(
        self,
        folder: Path,
        stage: str,
        settings: TrackingConfig,
        config: Row,
        active: bool = True,
        resumed_at: int | None = None,
    ) -> None:
        require_mirrors(settings)
        self.active = active
        self.mirrors: list[Mirror] = []
        if not active:
            return
        self.metrics = RowFile(folder / METRICS_FILE, resumed_at)
        self.samples = RowFile(folder / SAMPLES_FILE, resumed_at)
        self.warnings = RowFile(folder / WARNINGS_FILE, resumed_at)
        shown = mask_secrets(config) | {"versions": versions()}
        if settings.tensorboard is True or (settings.tensorboard == "auto" and is_installed("tensorboard")):
            self._add_mirror(TensorBoard, folder, shown, resumed_at)
        if settings.wandb != "disabled" and is_installed("wandb") and not wandb_is_off():
            self._add_mirror(Wandb, folder, stage, settings, shown, resumed_at is not None)
        for name in settings.trackers:
            self._add_mirror(Other, name, folder, stage, settings, shown)

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Write the row of metrics that ends a step; it is on disk when this returns."""
        if self.active:
            self.metrics.append({"step": step, **metrics})
            self._mirror(lambda mirror: mirror.log(metrics, step))

    def log_samples(self, rows: Sequence[Row], step: int) -> None:
        """Write sampled responses with their rewards: rows of equal keys."""
        if self.active and rows:
            for row in rows:
                self.samples.append({"step": step, **row})
            self._mirror(lambda mirror: mirror.show_samples(rows, step))

    def log_inspected(self, rows: Sequence[Row], step: int) -> None:
        """Show responses to the prompts that are followed through the run; rows of equal keys."""
        if self.active and rows:
            self._mirror(lambda mirror: mirror.show_inspected(rows, step))

    def log_warning(self, name: str, message: str, step: int) -> None:
        """Write down that something goes wrong; W&B sends it as an alert."""
        if self.active:
            self.warnings.append({"step": step, "name": name, "message": message})
            self._mirror(lambda mirror: mirror.warn(name, message, step))

    def finish(self, failed: bool = False) -> None:
        """Close every file and mirror; W&B marks a failed run as such."""
        if self.active:
            for file in (self.metrics, self.samples, self.warnings):
                file.close()
            self._mirror(lambda mirror: mirror.finish(failed))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.finish(failed=error is not None)

    def _add_mirror(self, kind: type[Mirror], *arguments: Any) -> None:
        _works(getattr(kind, "name", arguments[0]), lambda: self.mirrors.append(kind(*arguments)))

    def _mirror(self, show: Callable[[Mirror], None]) -> None:
        """Have every mirror show something; one that fails is left out from there on."""
        self.mirrors = [mirror for mirror in self.mirrors if _works(mirror.name, functools.partial(show, mirror))]


def _works(mirror: str, act: Callable[[], None]) -> bool:
    """Whether a mirror can do it; if not, a line says so: W&B's own process may die, a disk may be full."""
    try:
        act()
    except Exception as error:
        print(
            visible(mask_text(f"{mirror} has failed ({with_kind(error)}); the run goes on, with metrics.jsonl")),
            file=sys.stderr,
            flush=True,
        )
        return False
    return True
