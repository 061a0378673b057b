"""Files that are cut, gone, altered by a bit, or another run's."""

import functools
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from faults.fault import Attack, Fault, once
from faults.kills import UPDATE_5
from faults.lab import Lab
from faults.trial import Trial

STEP_7 = {"at": "accelerate:Accelerator.backward", "nth": 13}
STOPPED = {"ppo": UPDATE_5, "sft": STEP_7}
NEWEST = {"ppo": "checkpoint-000004", "sft": "checkpoint-000006"}
SEED_OF_ANOTHER_RUN = 7


def cut(file: Path, other: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def delete(file: Path, other: Path) -> None:
    file.unlink()


def flip(file: Path, other: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def swap(file: Path, other: Path) -> None:
    shutil.copy(other, file)


DAMAGES: dict[str, Callable[[Path, Path], None]] = {
    "cut in half": cut,
    "deleted": delete,
    "a bit flipped": flip,
    "swapped with another run's": swap,
}


def stopped_run(lab: Lab, stage: str, seed: int = 0) -> Path:
    """A run that was killed behind its second checkpoint, made once; with other numbers for another seed."""
    trial = Trial(lab, lab.root / "stopped" / f"{stage} {seed}", stage)
    with lab.lock:
        if not trial.run.exists():
            trial.start({"do": "send_signal", **STOPPED[stage], "number": signal.SIGKILL}, seed=seed)
    return trial.run


def begin(trial: Trial) -> tuple[Path, Path]:
    """Put a stopped run in the trial's place; returns its newest checkpoint, and the same one of another run."""
    stopped = stopped_run(trial.lab, trial.stage)
    shutil.copytree(stopped, trial.run)
    shutil.copy(stopped.with_name("steps"), trial.folder)
    trial.may_lose_saved = True
    other = stopped_run(trial.lab, trial.stage, SEED_OF_ANOTHER_RUN)
    newest = NEWEST[trial.stage]
    return trial.run / "checkpoints" / newest, other / "checkpoints" / newest


def damage_file(trial: Trial, name: str, how: Callable[[Path, Path], None]) -> None:
    mine, other = begin(trial)
    before = (mine / name).read_bytes()
    how(mine / name, other / name)
    if (mine / name).is_file() and (mine / name).read_bytes() == before:
        trial.seen.append("alike in both runs")
        trial.continue_()
    else:
        trial.continue_(says=f"{mine} is damaged")


def each_file(stage: str, how: Callable[[Path, Path], None]) -> Callable[[Lab], Sequence[Attack]]:
    def attacks(lab: Lab) -> Sequence[Attack]:
        checkpoint = stopped_run(lab, stage) / "checkpoints" / NEWEST[stage]
        files = [str(path.relative_to(checkpoint)) for path in sorted(checkpoint.rglob("*")) if path.is_file()]
        return [functools.partial(damage_file, name=name, how=how) for name in files]

    return attacks


def empty_folder(trial: Trial) -> None:
    mine, _ = begin(trial)
    shutil.rmtree(mine)
    mine.mkdir()
    trial.continue_(says=f"{mine} is damaged")


def both_damaged(trial: Trial) -> None:
    mine, _ = begin(trial)
    for checkpoint in mine.parent.iterdir():
        cut(checkpoint / "manifest.json", mine)
    trial.continue_(says="no other one is left")


def whole_checkpoint_of_another_run(trial: Trial) -> None:
    mine, other = begin(trial)
    shutil.rmtree(mine)
    shutil.copytree(other, mine)
    trial.continue_(says="it is another run's: seed was 7")


def torn_rows(trial: Trial, content: bytes) -> None:
    """What a power cut leaves at the end of files that were being written."""
    begin(trial)
    for name in ("metrics", "samples", "warnings"):
        with open(trial.run / f"{name}.jsonl", "ab") as file:
            file.write(content)
    trial.continue_()


def unreadable_config(trial: Trial, content: bytes) -> None:
    begin(trial)
    file = trial.run / "config.yaml"
    intact = file.read_bytes()
    file.write_bytes(content)
    trial.refused(trial.start(), "config.yaml")
    file.write_bytes(intact)
    trial.continue_()


def faults() -> list[Fault]:
    """All of this kind."""
    return [*of_checkpoints(), *of_rows_and_config()]


def of_checkpoints() -> list[Fault]:
    """The newest checkpoint, file by file and as a whole."""
    instead = "named on standard error; the one before is used"
    files = [
        Fault(
            name=f"each file of a checkpoint {what}",
            where=f"{stage}, on continuing",
            expected=instead,
            attacks=each_file(stage, how),
            stage=stage,
        )
        for stage in ("ppo", "sft")
        for what, how in DAMAGES.items()
    ]
    wholes = [
        ("newest checkpoint an empty folder", instead, empty_folder),
        ("newest checkpoint another run's, whole", instead, whole_checkpoint_of_another_run),
        ("all checkpoints damaged", "named; the run begins anew", both_damaged),
    ]
    return [
        *files,
        *(Fault(name=name, where="ppo, on continuing", expected=e, attacks=once(attack)) for name, e, attack in wholes),
    ]


def of_rows_and_config() -> list[Fault]:
    """What a run has written beside its checkpoints."""
    rows = {
        "last rows half written": b'{"step": 5, "obj',
        "NUL bytes behind the last rows": b"\0" * 64,
        "NUL bytes and a line break behind the last rows": b"\0" * 64 + b"\n",
    }
    configs = {"config.yaml empty": b"", "config.yaml no YAML": b"a: [\n", "config.yaml no text": b"\xff\xfe\0"}
    kinds: list[tuple[dict[str, bytes], str, str, Callable[..., None]]] = [
        (rows, "metrics, samples, warnings", "what was not a whole row is dropped", torn_rows),
        (configs, "on continuing", "refused in one line, nothing is touched", unreadable_config),
    ]
    return [
        Fault(name=name, where=f"ppo, {where}", expected=expected, attacks=once(attack, content=content))
        for contents, where, expected, attack in kinds
        for name, content in contents.items()
    ]
