"""Disks that are full, read-only, or refuse large files, in the moment something is to be saved."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from faults.fault import Fault, once
from faults.process import Ended
from faults.trial import Trial

MOMENTS = {
    "the first metrics": ("rlhf.ppo.loop:Tracker", 1),
    "metrics": ("rlhf.tracking.row_files:RowFile.append", 9),
    "a rollout": ("rlhf.ppo.inspection:save_rollout", 2),
    "the first checkpoint": ("rlhf.runs.checkpoints:CheckpointManager.save", 1),
    "a checkpoint": ("rlhf.runs.checkpoints:CheckpointManager.save", 2),
    "the policy": ("rlhf.ppo.loop:staged", 1),
    "the end of the run": ("rlhf.stages.frame:mark_done", 1),
}
REPORT = ("rlhf.report.write:write_page", 1)
READ_ONLY = {name: moment for name, moment in MOMENTS.items() if name != "metrics"}  # a file that is open stays so


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A disk of 16 MB at a folder; needs the right to mount one."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        unmount(folder)


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def may_mount(folder: Path) -> bool:
    """Whether this process has the right to mount disks."""
    try:
        with small_disk(folder):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def full(trial: Trial, at: str, nth: int) -> None:
    trial.changes["tracking"] = {"tensorboard": True}  # which writes there too
    with small_disk(trial.run):
        ended = trial.start({"do": "fill_disk", "at": at, "nth": nth, "folder": str(trial.run)})
        (trial.run / "ballast").unlink()
        go_on(trial, ended, at, "No space left on device")


def read_only(trial: Trial, at: str, nth: int) -> None:
    ended = trial.start({"do": "make_read_only", "at": at, "nth": nth, "folder": str(trial.run)})
    mounts = Path("/proc/self/mounts").read_text()
    trial.require(str(trial.run) in mounts, "it never came to that moment", ended)
    unmount(trial.run)
    go_on(trial, ended, at, "Read-only file system")


def size_limit(trial: Trial, at: str, nth: int) -> None:
    ended = trial.start({"do": "limit_file_size", "at": at, "nth": nth, "size": 4096})
    go_on(trial, ended, at, "File too large")


def go_on(trial: Trial, ended: Ended, at: str, reason: str) -> None:
    """Refused in a line with the reason, then continued; a report that cannot be written costs nothing but itself."""
    if at != REPORT[0]:
        trial.refused(ended, reason)
        trial.continue_()
        return
    trial.finished(ended, f"no report: .*{reason}.*rlhf report")
    trial.continue_()  # which writes it, and removes what could not be removed before


def faults() -> list[Fault]:
    """All of this kind."""
    refused = "one line with the reason; once there is room the same command continues"
    kinds = (("disk full", full, MOMENTS), ("disk read-only", read_only, READ_ONLY))
    while_saving = [
        Fault(
            name=name,
            where=f"ppo, saving {what}",
            expected=refused,
            attacks=once(attack, at=at, nth=nth),
        )
        for name, attack, moments in kinds
        for what, (at, nth) in moments.items()
    ]
    reports = [
        Fault(
            name=name,
            where="ppo, writing the report",
            expected="the run is finished; the same command writes the report",
            attacks=once(attack, at=REPORT[0], nth=REPORT[1]),
        )
        for name, attack, _ in kinds
    ]
    limited = Fault(
        name="files limited to 4 KB",
        where="ppo, saving a checkpoint",
        expected=refused,
        attacks=once(size_limit, at=MOMENTS["a checkpoint"][0], nth=2),
    )
    return [*while_saving, *reports, limited]
