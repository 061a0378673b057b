"""Metrics and samples: metrics.jsonl is the source of truth, W&B and TensorBoard mirror it."""

import json
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast, get_args

from rlhf.config import TrackingConfig
from rlhf.errors import UserError
from rlhf.runs import mask_secrets, read_jsonl, saving, versions, write_atomically

Mode = Literal["online", "offline", "disabled"]
Row = dict[str, Any]
WANDB_TIMEOUT_S = 20.0
"""A W&B server that does not answer costs a run this much at its start, and as much again at its end."""


class Tracker:
    """Writes the metrics and samples of one run; a context manager, so that a failing run is closed too.

    Args:
        folder: metrics.jsonl, samples.jsonl and tensorboard/ land here.
        stage: sft or ppo; the name of the W&B job.
        settings: Which mirrors to feed.
        config: The resolved config, shown by the mirrors with secrets masked.
        active: False on ranks other than the first, where every call does nothing.
        resumed_at: The step that the run goes on from: rows of later steps are removed, the rest is kept. None
            starts afresh.
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
        self.active, self.settings = active, settings
        self.wandb_run: Any = None
        self.board: Any = None
        if not active:
            return
        self.metrics_file = _open_at(folder / "metrics.jsonl", resumed_at)
        self.samples_file = _open_at(folder / "samples.jsonl", resumed_at)
        self.warnings_file = _open_at(folder / "warnings.jsonl", resumed_at)
        shown = mask_secrets(config) | {"versions": versions()}
        if settings.tensorboard:
            with self._not_at_the_cost_of_the_run("board"):
                self.board = _start_tensorboard(folder, shown, resumed_at)
        if settings.wandb != "disabled":
            with self._not_at_the_cost_of_the_run():
                self.wandb_run = _start_wandb(folder, stage, settings, shown, resumed_at is not None)
            for row in read_jsonl(folder / "metrics.jsonl"):  # what W&B has not got of the part before
                self._to_wandb(row, row["step"], commit=True)

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Write the row of metrics that ends a step; it is on disk when this returns."""
        if not self.active:
            return
        _write_line(self.metrics_file, {"step": step, **metrics})
        if self.board:
            with self._not_at_the_cost_of_the_run("board"):
                for name, value in metrics.items():
                    self.board.add_scalar(name, value, step)
                self.board.flush()
        self._to_wandb({"step": step, **metrics}, step, commit=True)

    def log_samples(self, rows: Sequence[Row], step: int) -> None:
        """Write sampled responses with their rewards: rows of equal keys."""
        if not self.active or not rows:
            return
        for row in rows:
            _write_line(self.samples_file, {"step": step, **row})
        self._show_table("samples", rows, step)

    def log_inspected(self, rows: Sequence[Row], step: int) -> None:
        """Show responses to the prompts that are followed through the run; rows of equal keys."""
        if not self.active or not rows:
            return
        self._show_table("inspected", rows, step)
        if self.board:
            with self._not_at_the_cost_of_the_run("board"):
                self.board.add_text("inspected", "\n\n---\n\n".join(_as_markdown(row) for row in rows), step)

    def log_warning(self, name: str, message: str, step: int) -> None:
        """Write down that something goes wrong; W&B sends it as an alert."""
        if not self.active:
            return
        _write_line(self.warnings_file, {"step": step, "name": name, "message": message})
        if self.board:
            with self._not_at_the_cost_of_the_run("board"):
                self.board.add_text(f"warnings/{name}", message, step)
        if self.wandb_run:
            with self._not_at_the_cost_of_the_run():
                self.wandb_run.alert(title=name, text=message, level="WARN")

    def finish(self, failed: bool = False) -> None:
        """Close every file and mirror; W&B marks a failed run as such."""
        if not self.active:
            return
        for file in (self.metrics_file, self.samples_file, self.warnings_file):
            file.close()
        if self.board:
            with self._not_at_the_cost_of_the_run("board"):
                self.board.close()
        if self.wandb_run:
            with self._not_at_the_cost_of_the_run():
                self.wandb_run.finish(exit_code=int(failed))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.finish(failed=error is not None)

    def _show_table(self, name: str, rows: Sequence[Row], step: int) -> None:
        if self.wandb_run:
            import wandb

            table = wandb.Table(columns=["step", *rows[0]], data=[[step, *row.values()] for row in rows])
            self._to_wandb({name: table}, step, commit=False)

    def _to_wandb(self, row: Row, step: int, commit: bool) -> None:
        """Send what belongs to a step, unless the W&B run that is continued has that step already."""
        if self.wandb_run and step >= self.wandb_run.starting_step:
            with self._not_at_the_cost_of_the_run():
                self.wandb_run.log(row, step=step, commit=commit)

    @contextmanager
    def _not_at_the_cost_of_the_run(self, mirror: Literal["wandb_run", "board"] = "wandb_run") -> Iterator[None]:
        """Go on without a mirror that fails: W&B works in a process of its own, which may die; a disk may be full."""
        try:
            yield
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")
            name = "TensorBoard" if mirror == "board" else "W&B"
            print(f"{name} has failed ({reason}); the run goes on, with metrics.jsonl", file=sys.stderr, flush=True)
            setattr(self, mirror, None)


def wandb_mode(settings: TrackingConfig) -> Mode:
    """auto follows WANDB_MODE; else online where a key is at hand, offline otherwise: no run waits for a log-in."""
    if settings.wandb != "auto":
        return settings.wandb
    import wandb

    if os.environ.get("WANDB_MODE") in get_args(Mode):
        return cast(Mode, os.environ["WANDB_MODE"])
    return "online" if wandb.login(prompt=False) else "offline"


def _start_tensorboard(folder: Path, config: Row, resumed_at: int | None) -> Any:
    """A writer that has said what the run is; steps after `resumed_at` of an earlier one do not count any more."""
    from torch.utils.tensorboard import SummaryWriter

    board = SummaryWriter(str(folder / "tensorboard"), purge_step=None if resumed_at is None else resumed_at + 1)
    board.add_text("config", _code_block(json.dumps(config, indent=2, ensure_ascii=False)), resumed_at or 0)
    return board


def _start_wandb(folder: Path, stage: str, settings: TrackingConfig, config: Row, resumed: bool) -> Any:
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


def _as_markdown(row: Row) -> str:
    """One paragraph per entry, texts as they are."""
    return "\n\n".join(
        f"**{name}**\n\n{_code_block(value)}" if isinstance(value, str) else f"**{name}** {value}"
        for name, value in row.items()
    )


def _code_block(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _open_at(file: Path, step: int | None) -> FileIO:
    """Open for writing behind the rows up to `step`; what a crash has left at the end that is no row goes too.

    Raises UserError for a line in the middle that cannot be read.
    """
    lines = file.read_bytes().splitlines(keepends=True) if step is not None and file.is_file() else []
    steps = [_step_of(line) for line in lines]
    while steps and steps[-1] is None:
        steps.pop()
    if None in steps:
        raise UserError(f"{file}, line {steps.index(None) + 1} cannot be read; mend or remove that line")
    kept = [line for line, its in zip(lines, steps, strict=False) if its is not None and its <= (step or 0)]
    write_atomically(file, b"".join(kept).decode())
    with saving(file):
        return open(file, "ab", buffering=0)


def _step_of(line: bytes) -> int | None:
    """The step of a row; None for anything but a whole row."""
    try:
        return int(json.loads(line.decode())["step"]) if line.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError):
        return None


def _write_line(file: FileIO, row: Row) -> None:
    """Append a row without a buffer: what a full disk has refused must not be tried again when the file is closed."""
    line = memoryview((json.dumps(row, ensure_ascii=False) + "\n").encode())
    with saving(Path(str(file.name))):
        while line:
            line = line[file.write(line) :]
