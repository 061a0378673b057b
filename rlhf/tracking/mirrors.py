"""Mirrors of what a run writes down: TensorBoard and W&B."""

import json
import os
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args

from rlhf.config import TrackingConfig
from rlhf.config.checks import require
from rlhf.config.secrets import mask_text
from rlhf.errors import first_line, visible
from rlhf.extras import is_installed, require_extra
from rlhf.runs.files import read_jsonl
from rlhf.runs.folder import METRICS_FILE, WANDB_ID_FILE

Mode = Literal["online", "offline", "disabled"]
Row = dict[str, Any]
WANDB_TIMEOUT_S = 20.0
"""A W&B server that does not answer costs a run this much at its start, and as much again at its end."""


class Mirror(Protocol):
    """Shows the rows of a run somewhere else; it may fail in any call.

    Attributes:
        name: What the user calls it.
    """

    name: str

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Show the metrics that end a step."""

    def show_samples(self, rows: Sequence[Row], step: int) -> None:
        """Show sampled responses, rows of equal keys, before the metrics of their step."""

    def show_inspected(self, rows: Sequence[Row], step: int) -> None:
        """Show responses to the prompts that are followed through the run, likewise."""

    def warn(self, name: str, message: str, step: int) -> None:
        """Say that something goes wrong."""

    def finish(self, failed: bool) -> None:
        """Close it."""


class TensorBoard:
    """Events in `tensorboard/` beside the metrics.

    Args:
        folder: Of the run.
        config: Shown as text.
        resumed_at: What an earlier process has shown of later steps does not count any more; None, a new run, of any.
    """

    name = "TensorBoard"

    def __init__(self, folder: Path, config: Row, resumed_at: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = 0 if resumed_at is None else resumed_at + 1  # a new run may follow an abandoned one in its folder
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)
        self.writer.add_text("config", _code_block(json.dumps(config, indent=2, ensure_ascii=False)), resumed_at or 0)

    def log(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def show_samples(self, rows: Sequence[Row], step: int) -> None:
        """Nothing: it has no tables, and samples.jsonl can be read."""

    def show_inspected(self, rows: Sequence[Row], step: int) -> None:
        self.writer.add_text("inspected", "\n\n---\n\n".join(_as_markdown(row) for row in rows), step)

    def warn(self, name: str, message: str, step: int) -> None:
        self.writer.add_text(f"warnings/{name}", message, step)

    def finish(self, failed: bool) -> None:
        self.writer.close()


class Wandb:
    """A run of W&B; offline, with a line that says so, where the server does not answer in time.

    Args:
        folder: Of the run; W&B's own files land in wandb/, the run's id in wandb_id.txt.
        stage: Name of the job.
        settings: The W&B project, and whether it is online.
        config: Shown beside the metrics.
        resumed: Goes on with the same id, and sends the rows of metrics.jsonl that W&B has not got.
    """

    name = "W&B"

    def __init__(self, folder: Path, stage: str, settings: TrackingConfig, config: Row, resumed: bool) -> None:
        self.run = _start_wandb(folder, stage, settings, config, resumed)
        for row in read_jsonl(folder / METRICS_FILE):
            self._send(row, row["step"], commit=True)

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._send({"step": step, **metrics}, step, commit=True)

    def show_samples(self, rows: Sequence[Row], step: int) -> None:
        self._show_table("samples", rows, step)

    def show_inspected(self, rows: Sequence[Row], step: int) -> None:
        self._show_table("inspected", rows, step)

    def warn(self, name: str, message: str, step: int) -> None:
        self.run.alert(title=name, text=message, level="WARN")

    def finish(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))

    def _show_table(self, name: str, rows: Sequence[Row], step: int) -> None:
        import wandb

        table = wandb.Table(columns=["step", *rows[0]], data=[[step, *row.values()] for row in rows])
        self._send({name: table}, step, commit=False)

    def _send(self, row: Row, step: int, commit: bool) -> None:
        """Send what belongs to a step, unless the W&B run that is continued has that step already."""
        if step >= self.run.starting_step:
            self.run.log(row, step=step, commit=commit)


def require_mirrors(settings: TrackingConfig) -> None:
    """Raise UserError for a mirror that the settings name and that is not installed; auto takes what is there."""
    if settings.wandb in ("online", "offline"):
        require_extra("wandb", f"tracking.wandb {settings.wandb}")
    if settings.tensorboard is True:
        require_extra("tensorboard", "tracking.tensorboard true")
    for name in settings.trackers:
        require(is_installed(name), f"tracking.trackers names {name}, which is not installed: pip install {name}")


def wandb_is_off() -> bool:
    """Whether the environment turns W&B off, as WANDB_DISABLED=true does in every library."""
    return os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes", "on")


def wandb_mode(settings: TrackingConfig) -> Mode:
    """auto follows WANDB_MODE; else online where a key is at hand, offline otherwise: no run waits for a log-in."""
    if settings.wandb != "auto":
        return settings.wandb
    import wandb

    if os.environ.get("WANDB_MODE") in get_args(Mode):
        return cast(Mode, os.environ["WANDB_MODE"])
    return "online" if wandb.login(prompt=False) else "offline"


def _start_wandb(folder: Path, stage: str, settings: TrackingConfig, config: Row, resumed: bool) -> Any:
    """An initialized run, online if that is asked for and possible."""
    import wandb

    def start(mode: Mode, run_id: str) -> Any:
        return wandb.init(
            project=settings.wandb_project,
            name=f"{folder.resolve().parent.name}/{folder.name}",
            job_type=stage,
            dir=str(folder),
            id=run_id,
            resume="allow",
            config=config,
            mode=mode,
            settings=wandb.Settings(
                silent=True,
                disable_git=True,
                console="off",
                x_disable_meta=True,  # the command line is in it, and may hold a secret
                init_timeout=WANDB_TIMEOUT_S,
                finish_timeout=WANDB_TIMEOUT_S,
            ),
        )

    try:
        run = start(wandb_mode(settings), _wandb_id(folder, resumed))
    except wandb.errors.Error as error:
        print(
            f"W&B cannot be reached ({visible(mask_text(first_line(error)))}); logging offline, upload later with: "
            "wandb sync",
            file=sys.stderr,
        )
        run = start("offline", _wandb_id(folder, resumed=False))  # the other id counts as taken
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    return run


def _wandb_id(folder: Path, resumed: bool) -> str:
    """A new id, or that of the run that is continued."""
    file = folder / WANDB_ID_FILE
    if not (resumed and file.is_file()):
        file.write_text(uuid.uuid4().hex[:8])
    return file.read_text()


def _as_markdown(row: Row) -> str:
    """One paragraph per entry, texts as they are."""
    return "\n\n".join(
        f"**{name}**\n\n{_code_block(value)}" if isinstance(value, str) else f"**{name}** {value}"
        for name, value in row.items()
    )


def _code_block(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
