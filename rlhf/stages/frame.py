"""The frame of every stage that trains: a run folder, work that is done once, a report, the model handed on."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from rlhf.config import FineTuningConfig, PPOConfig
from rlhf.config.checks import require
from rlhf.parallel.launch import join_processes, require_data_parallel, require_plain_precision, said_once
from rlhf.parallel.ranks import Ranks
from rlhf.report.write import REPORT_FILE, write_report
from rlhf.runs.checkpoints import CHECKPOINTS_FOLDER, CheckpointManager
from rlhf.runs.folder import METRICS_FILE, is_done, mark_done, open_run
from rlhf.runs.hub import push
from rlhf.runs.locking import locked


def run_once(
    config: FineTuningConfig | PPOConfig, ranks: Ranks, model_folder: str, train: Callable[[Path], None]
) -> Path:
    """Let `train` fill the run folder unless that is done, and write the report; returns the folder of the model.

    Args:
        config: Says where the run folder is, and whether the model is uploaded.
        ranks: All of them train; the first one opens the folder and does what comes after.
        model_folder: Where in the run folder `train` leaves the model.
        train: Takes the run folder; continues from the checkpoints in it.
    """
    with ExitStack() as held:  # by the first rank
        ranks.first(lambda: held.enter_context(locked(config.output_dir)))
        folder = ranks.first(lambda: open_run(config.output_dir, config))
        if is_done(folder):
            ranks.first(lambda: say_finished(folder, model_folder))
        else:
            started = time.monotonic()
            train(folder)
            if ranks.is_first:
                mark_done(folder, time.monotonic() - started)
        if ranks.is_first:
            if not (folder / REPORT_FILE).is_file():  # also where it could not be written the first time
                write_report([folder], folder / REPORT_FILE)
            CheckpointManager(folder / CHECKPOINTS_FOLDER).clear()  # only now: until it is done they may be needed
            push(folder / model_folder, config.push_to_hub)
            best = f"{model_folder}-best"
            places = {model_folder: model_folder, best: best, "report": REPORT_FILE, "metrics": METRICS_FILE}
            print_places(folder, places)
    return folder / model_folder


def say_finished(folder: Path, result: str = "") -> None:
    """Say that there is nothing left to do; raises UserError where what the run has made is gone."""
    require(
        (folder / result).exists(), f"{folder} is finished, but its {result} is gone; remove that folder to train again"
    )
    print(f"{folder} is finished, and nothing was done; for another run choose another output_dir", flush=True)


def print_places(folder: Path, files: dict[str, str]) -> None:
    """Say where in a run's folder its files are, by what they are; one that is not there is left out."""
    for what, name in files.items():
        if (folder / name).exists():
            print(f"{what:<12} {folder / name}", flush=True)


@said_once()
def join_data_parallel(stage: str, processes: int | None) -> Ranks:
    """Meet the other processes of a stage that keeps all weights on each; raises as `join_processes` does."""
    require_plain_precision()
    require_data_parallel(stage, or_zero2=True)
    return Ranks.of(join_processes(processes))
