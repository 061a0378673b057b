"""Metrics and samples: metrics.jsonl is the source of truth, W&B and TensorBoard mirror it."""

import json
import os
import re
import sys
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TextIO, cast, get_args

from rlhf.config import TrackingConfig

Mode = Literal["online", "offline", "disabled"]
WANDB_TIMEOUT_S = 20.0
SECRET_KEY = re.compile(r"token$|secret|password|api_?key|credential", re.IGNORECASE)


class Tracker:
    """Writes the metrics and samples of one run; a context manager, so that a failing run is closed too.

    Args:
        folder: metrics.jsonl, samples.jsonl and tensorboard/ land here.
        stage: sft or ppo; the name of the W&B job.
        settings: Which mirrors to feed.
        config: The resolved config, shown in W&B with secrets masked.
        active: False on ranks other than the first, where every call does nothing.
        resumed_at: The step that the run goes on from: rows of later steps are removed, the rest is kept. None
            starts afresh.
    """

    def __init__(
        self,
        folder: Path,
        stage: str,
        settings: TrackingConfig,
        config: dict[str, Any],
        active: bool = True,
        resumed_at: int | None = None,
    ) -> None:
        self.active, self.settings = active, settings
        self.wandb_run: Any = None
        self.board: Any = None
        if not active:
            return
        self.metrics_file = _open_at(folder / "metrics.jsonl", resumed_at)
        self.samples_file = _open_at(folder / "samples.jsonl", resumed_at)
        self.warnings_file = _open_at(folder / "warnings.jsonl", resumed_at)
        if settings.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            purge_step = None if resumed_at is None else resumed_at + 1
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=purge_step)
        if settings.wandb != "disabled":
            self.wandb_run = _start_wandb(folder, stage, settings, config, resumed_at is not None)

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Write one row of metrics; it is on disk when this returns."""
        if not self.active:
            return
        _write_line(self.metrics_file, {"step": step, **metrics})
        if self.board:
            for name, value in metrics.items():
                self.board.add_scalar(name, value, step)
        if self.wandb_run:
            self.wandb_run.log({"step": step, **metrics})

    def log_samples(self, rows: list[dict[str, Any]], step: int) -> None:
        """Write sampled responses with their rewards: rows of equal keys."""
        if not self.active or not rows:
            return
        for row in rows:
            _write_line(self.samples_file, {"step": step, **row})
        if self.wandb_run:
            import wandb

            table = wandb.Table(columns=["step", *rows[0]], data=[[step, *row.values()] for row in rows])
            self.wandb_run.log({"step": step, "samples": table})

    def log_warning(self, name: str, message: str, step: int) -> None:
        """Write down that something goes wrong; W&B sends it as an alert."""
        if not self.active:
            return
        _write_line(self.warnings_file, {"step": step, "name": name, "message": message})
        if self.wandb_run:
            self.wandb_run.alert(title=name, text=message)

    def finish(self, failed: bool = False) -> None:
        """Close every file and mirror; W&B marks a failed run as such."""
        if not self.active:
            return
        for file in (self.metrics_file, self.samples_file, self.warnings_file):
            file.close()
        if self.board:
            self.board.close()
        if self.wandb_run:
            self.wandb_run.finish(exit_code=int(failed))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.finish(failed=error is not None)


def mask_secrets(config: Any) -> Any:
    """A copy of a config in which the value of every key that looks like a secret is `***`."""
    if isinstance(config, dict):
        return {k: "***" if SECRET_KEY.search(str(k)) and v else mask_secrets(v) for k, v in config.items()}
    if isinstance(config, list):
        return [mask_secrets(item) for item in config]
    return config


def wandb_mode(settings: TrackingConfig) -> Mode:
    """auto follows WANDB_MODE; else online where a key is at hand, offline otherwise: no run waits for a log-in."""
    if settings.wandb != "auto":
        return settings.wandb
    import wandb

    if os.environ.get("WANDB_MODE") in get_args(Mode):
        return cast(Mode, os.environ["WANDB_MODE"])
    return "online" if wandb.api.api_key else "offline"


def _start_wandb(folder: Path, stage: str, settings: TrackingConfig, config: dict[str, Any], resumed: bool) -> Any:
    """An initialised run; offline, with a line that says so, where the server does not answer in time."""
    import wandb

    def start(mode: Mode, run_id: str) -> Any:
        return wandb.init(
            project=settings.wandb_project,
            name=f"{folder.resolve().parent.name}/{folder.name}",
            job_type=stage,
            dir=str(folder),
            id=run_id,
            resume="allow",
            config=mask_secrets(config),
            mode=mode,
            settings=wandb.Settings(silent=True, disable_git=True, console="off", init_timeout=WANDB_TIMEOUT_S),
        )

    try:
        run = start(wandb_mode(settings), _wandb_id(folder, resumed))
    except wandb.errors.Error as error:
        reason = str(error).splitlines()[0]
        print(f"W&B cannot be reached ({reason}); logging offline, upload later with: wandb sync", file=sys.stderr)
        run = start("offline", _wandb_id(folder, resumed=False))  # the other id counts as taken
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    return run


def _wandb_id(folder: Path, resumed: bool) -> str:
    """A new id, or that of the run that is continued."""
    file = folder / "wandb_id.txt"
    if not (resumed and file.is_file()):
        file.write_text(uuid.uuid4().hex[:8])
    return file.read_text()


def _open_at(file: Path, step: int | None) -> TextIO:
    """Open for writing behind the rows up to `step`; a row that a crash cut off goes too."""
    kept = b""
    if step is not None and file.is_file():
        lines = file.read_bytes().splitlines(keepends=True)
        kept = b"".join(line for line in lines if line.endswith(b"\n") and json.loads(line)["step"] <= step)
    with open(file, "wb") as stream:
        stream.write(kept)
    return open(file, "a", encoding="utf-8")


def _write_line(file: TextIO, row: dict[str, Any]) -> None:
    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    file.flush()
