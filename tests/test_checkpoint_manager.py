"""Checkpoints under real kills, real damage and a disk that refuses."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf.config import CheckpointConfig, DataConfig, ModelConfig, SFTConfig
from rlhf.errors import UserError
from rlhf.runs.checkpoints import MANIFEST, CheckpointManager, damage
from rlhf.runs.state_files import load_state, save_state

# Saves a checkpoint and kills itself just before file-system call number KILL_AT (a write counts as one): every call
# that can change the disk raises an audit event, but fsync and write, which are wrapped.
KILLED_WHILE_SAVING = """
import io, os, signal, sys
from pathlib import Path
from rlhf.runs.checkpoints import CheckpointManager

folder, step, content, kill_at = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
calls = []

def count(event):
    calls.append(event)
    if len(calls) == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

def before(function):
    def wrapped(*args):
        count(function.__name__)
        return function(*args)
    return wrapped

def write(staging):
    (staging / "sub").mkdir()
    for name in ("a.bin", "sub/b.bin"):
        with open(staging / name, "wb", buffering=0) as stream:
            for half in (content[:2], content[2:]):
                before(stream.write)(half.encode())

os.fsync = before(os.fsync)
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}
sys.addaudithook(
    lambda event, args: count(event) if event in CHANGES or event == "open" and str(folder) in str(args[0]) else None
)
CheckpointManager(folder, keep=int(sys.argv[5])).save(step, write)
print(" ".join(calls))
"""


def save_killed(folder: Path, step: int, content: str, kill_at: int, keep: int) -> subprocess.CompletedProcess:
    arguments = [str(folder), str(step), content, str(kill_at), str(keep)]
    return subprocess.run([sys.executable, "-c", KILLED_WHILE_SAVING, *arguments], capture_output=True, text=True)


def filled(content: str):
    def write(folder: Path) -> None:
        (folder / "sub").mkdir()
        for name in ("a.bin", "sub/b.bin"):
            (folder / name).write_text(content)

    return write


def content_of(checkpoint: Path | None) -> str | None:
    if checkpoint is None:
        return None
    first, second = ((checkpoint / name).read_text() for name in ("a.bin", "sub/b.bin"))
    assert first == second
    return first


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("saved", "step", "keep"),
    [({}, 1, 2), ({1: "old1", 2: "old2"}, 3, 2), ({2: "old2"}, 2, 1)],
    ids=["first", "third of two", "again"],
)
def test_killed_at_every_file_system_call(tmp_path, saved, step, keep, capsys):
    """After each kill, `latest` is the previous or the new checkpoint, and saving once more works."""
    outcomes, kill_at, newest = [], 0, saved.get(max(saved, default=0))
    while True:
        kill_at += 1
        folder = tmp_path / str(kill_at)
        manager = CheckpointManager(folder, keep)
        for earlier, content in saved.items():
            manager.save(earlier, filled(content))
        process = save_killed(folder, step, "new!", kill_at, keep)
        found = content_of(manager.latest())
        assert found in (newest, "new!")
        outcomes.append(found)
        if process.returncode == 0:
            break
        assert process.returncode == -9, process.stderr
        manager.save(step, filled("anew"))
        assert content_of(manager.latest()) == "anew"
        expected = [f"checkpoint-{each:06d}" for each in sorted({*saved, step})][-keep:]
        assert steps(folder) == expected, "leftovers of the kill"
    calls = process.stdout.split()
    assert calls.count("fsync") == 3 + 2 + 1  # two files and a folder; manifest and checkpoint; their parent
    assert calls.count("write") == 4
    assert len(calls) == kill_at - 1
    assert outcomes.index("new!") > calls.index("os.rename")
    assert outcomes == sorted(outcomes, key=lambda found: found == "new!"), "once there, it stays"
    assert capsys.readouterr().err == ""


def damages() -> dict:
    """What can befall a checkpoint, and how it is reported."""
    cases = {
        "empty folder": (lambda c: [shutil.rmtree(c), c.mkdir()], f"{MANIFEST} is missing"),
        "no manifest": (lambda c: (c / MANIFEST).unlink(), f"{MANIFEST} is missing"),
        "extra file": (lambda c: (c / "sub" / "x").write_text(""), "sub/x is not in the manifest"),
        "manifest of another step": (
            lambda c: shutil.copy(c.with_name("checkpoint-000001") / MANIFEST, c),
            "a.bin is not the one in the manifest",
        ),
        "renamed checkpoint": (
            lambda c: [shutil.rmtree(c), c.with_name("checkpoint-000001").rename(c)],
            "does not belong to step 2",
        ),
        "manifest: list": (lambda c: (c / MANIFEST).write_text("[]"), "is not a manifest"),
        "manifest: null": (lambda c: (c / MANIFEST).write_text('{"step": 2, "files": null}'), "is not a manifest"),
        "manifest: no files": (lambda c: (c / MANIFEST).write_text('{"step": 2, "files": {}}'), "a.bin is not in"),
        "manifest: not text": (lambda c: (c / MANIFEST).write_bytes(b"\xff\xfe"), "cannot be read"),
    }
    for name in ("a.bin", "sub/b.bin"):
        cases[f"{name} deleted"] = (lambda c, name=name: (c / name).unlink(), f"{name} is missing")
        cases[f"{name} cut"] = (
            lambda c, name=name: os.truncate(c / name, 3),
            f"{name} is not the one in the manifest: it has 3 bytes",
        )
        cases[f"{name} emptied"] = (
            lambda c, name=name: os.truncate(c / name, 0),
            f"{name} is not the one in the manifest: it has 0 bytes",
        )
        cases[f"{name} flipped"] = (
            lambda c, name=name: flip(c / name, 0),
            f"{name} is not the one in the manifest: it has 4 bytes",
        )
    return cases


def flip(file: Path, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


@pytest.mark.parametrize("case", damages())
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, case, capsys):
    harm, reason = damages()[case]
    manager = CheckpointManager(tmp_path)
    for step in (1, 2):
        manager.save(step, filled(f"old{step}"))
    harm(tmp_path / "checkpoint-000002")
    latest = manager.latest()
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith(f"checkpoint {tmp_path / 'checkpoint-000002'} is damaged (")
    assert reason in line
    if "renamed" in case:
        assert latest is None
        assert line.endswith("no other one is left\n")
    else:
        assert content_of(latest) == "old1"
        assert line.endswith("using checkpoint-000001 instead\n")


def test_flipped_bits(tmp_path):
    """Every bit of the files, and one of each byte of the manifest."""
    checkpoint = CheckpointManager(tmp_path).save(7, filled("abcd"))
    for file in (path for path in checkpoint.rglob("*") if path.is_file()):
        for bit in range(0, 8 * file.stat().st_size, 7 if file.name == MANIFEST else 1):
            flip(file, bit)
            assert damage(checkpoint) is not None, f"{file.name}, bit {bit}"
            flip(file, bit)
    assert damage(checkpoint) is None


def test_cut_at_every_length(tmp_path):
    checkpoint = CheckpointManager(tmp_path).save(7, filled("abcd"))
    for file in (path for path in checkpoint.rglob("*") if path.is_file()):
        content = file.read_bytes()
        for length in range(len(content)):
            file.write_bytes(content[:length])
            cut_only_the_newline = file.name == MANIFEST and length == len(content) - 1
            assert (damage(checkpoint) is None) == cut_only_the_newline
        file.write_bytes(content)


def test_damaged_ones_are_not_counted_as_kept(tmp_path, capsys):
    manager = CheckpointManager(tmp_path, keep=2)
    for step in (1, 2):
        manager.save(step, filled(f"old{step}"))
    flip(tmp_path / "checkpoint-000002" / "a.bin", 5)
    manager.save(3, filled("old3"))
    assert steps(tmp_path) == ["checkpoint-000001", "checkpoint-000003"]


def test_a_damaged_later_one_never_shadows(tmp_path, capsys):
    """Resumed from step 1 because step 9 is damaged: step 2 is then the newest."""
    manager = CheckpointManager(tmp_path, keep=2)
    for step in (1, 9):
        manager.save(step, filled(f"old{step}"))
    (tmp_path / "checkpoint-000009" / "a.bin").unlink()
    assert content_of(manager.latest()) == "old1"
    manager.save(2, filled("new2"))
    assert content_of(manager.latest()) == "new2"
    assert steps(tmp_path) == ["checkpoint-000001", "checkpoint-000002"]


def test_a_later_one_is_of_another_course(tmp_path):
    """A run that goes on from step 1 has left the course that led to an intact step 9."""
    manager = CheckpointManager(tmp_path, keep=2)
    for step in (1, 9, 2):
        manager.save(step, filled(f"old{step}"))
    assert steps(tmp_path) == ["checkpoint-000001", "checkpoint-000002"]


def test_what_a_kill_at_another_step_left_is_removed(tmp_path):
    left = tmp_path / ".staging-checkpoint-000007"
    left.mkdir()
    (left / "a.bin").write_text("half")
    manager = CheckpointManager(tmp_path)
    assert manager.latest() is None
    assert left.exists(), "another process may be writing it"
    manager.save(8, filled("old8"))
    assert steps(tmp_path) == ["checkpoint-000008"]


def test_all_damaged_is_none_and_names_each(tmp_path, capsys):
    manager = CheckpointManager(tmp_path, keep=3)
    for step in (1, 2, 3):
        manager.save(step, filled(f"old{step}"))
    for step in (1, 2, 3):
        (tmp_path / f"checkpoint-{step:06d}" / MANIFEST).unlink()
    assert manager.latest() is None
    assert len(capsys.readouterr().err.splitlines()) == 3


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_retention(tmp_path, keep):
    manager = CheckpointManager(tmp_path, keep)
    for step in range(8, 13):  # over the edge from one digit to two
        assert manager.save(step, filled(f"old{step}")) == tmp_path / f"checkpoint-{step:06d}"
    assert steps(tmp_path) == [f"checkpoint-{step:06d}" for step in range(13 - keep, 13)]
    assert manager.step_of(manager.latest()) == 12


def test_order_is_by_number_beyond_six_digits(tmp_path):
    manager = CheckpointManager(tmp_path)
    for step in (999_999, 1_000_000):
        manager.save(step, filled(f"{step}"))
    assert manager.step_of(manager.latest()) == 1_000_000


def test_no_checkpoint_yet(tmp_path):
    assert CheckpointManager(tmp_path / "none").latest() is None
    with pytest.raises(ValueError, match="not the folder of a checkpoint"):
        CheckpointManager.step_of(tmp_path / "model")


def test_other_folders_are_neither_found_nor_removed(tmp_path):
    for name in ("notes", "checkpoint-12", "checkpoint-000012.bak"):
        (tmp_path / name).mkdir()
    manager = CheckpointManager(tmp_path, keep=1)
    assert manager.latest() is None
    manager.save(1, filled("old1"))
    manager.save(2, filled("old2"))
    assert steps(tmp_path) == ["checkpoint-000002", "checkpoint-000012.bak", "checkpoint-12", "notes"]
    manager.clear()
    assert not tmp_path.exists()


def test_manifest_lists_sizes_and_hashes_sorted(tmp_path):
    manifest = json.loads((CheckpointManager(tmp_path).save(3, filled("abcd")) / MANIFEST).read_text())
    digest = "88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589"  # printf abcd | sha256sum
    entry = {"bytes": 4, "sha256": digest}
    assert manifest == {"step": 3, "files": {"a.bin": entry, "sub/b.bin": entry}}
    assert list(manifest["files"]) == ["a.bin", "sub/b.bin"]


def fill_the_disk(folder: Path) -> None:
    (folder / "a.bin").symlink_to("/dev/full")
    (folder / "a.bin").write_text("no space for this")


def fill_the_disk_with_tensors(folder: Path) -> None:
    import torch

    (folder / "state.safetensors").mkdir()  # what safetensors raises is no OSError
    save_state(folder, "state", {"x": torch.zeros(4)})


@pytest.mark.parametrize(
    ("write", "reason"),
    [(fill_the_disk, r"No space left on device"), (fill_the_disk_with_tensors, r"directory")],
    ids=["full", "safetensors"],
)
def test_a_disk_that_refuses_is_one_line_and_harms_nothing(tmp_path, write, reason):
    manager = CheckpointManager(tmp_path, keep=1)
    manager.save(1, filled("old1"))
    with pytest.raises(UserError, match=reason) as caught:
        manager.save(2, write)
    assert str(tmp_path / "checkpoint-000002") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert steps(tmp_path) == ["checkpoint-000001"]
    assert content_of(manager.latest()) == "old1"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"file/checkpoints/checkpoint-000001 \(Not a directory\)"):
        CheckpointManager(tmp_path / "file" / "checkpoints").save(1, filled("x"))


def test_any_other_error_leaves_no_staging(tmp_path):
    def fail(folder: Path) -> None:
        (folder / "a.bin").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CheckpointManager(tmp_path).save(1, fail)
    assert steps(tmp_path) == []


def test_state_files_inside(tmp_path):
    import torch

    manager = CheckpointManager(tmp_path)
    manager.save(5, lambda folder: save_state(folder, "state", {"x": torch.arange(3), "kl_coef": 0.1}))
    state = load_state(manager.latest(), "state")
    assert state["kl_coef"] == 0.1
    assert torch.equal(state["x"], torch.arange(3))


@pytest.mark.parametrize("name", ["save_steps", "save_total_limit"])
def test_config_must_be_positive(name):
    with pytest.raises(UserError, match=f"{name} is 0"):
        CheckpointConfig(**{name: 0})


def test_a_whole_checkpoint_of_another_run_is_not_used(tmp_path, capsys):
    """Nor does it count among those that are kept; one without a name on it belongs to anybody."""
    described = {"model": ModelConfig(name_or_path="m"), "data": DataConfig(train="d")}
    mine = CheckpointManager(tmp_path / "mine", keep=2, config=SFTConfig(**described, seed=0))
    theirs = CheckpointManager(tmp_path / "theirs", config=SFTConfig(**described, seed=7))
    nobodys = CheckpointManager(tmp_path / "mine")
    nobodys.save(1, filled("nobody's"))
    assert content_of(mine.latest()) == "nobody's"
    mine.save(2, filled("mine"))
    shutil.copytree(theirs.save(3, filled("theirs")), mine.folder / "checkpoint-000003")
    assert content_of(mine.latest()) == "mine"
    assert "checkpoint-000003 is damaged (it is another run's: seed was 7 and is 0 here)" in capsys.readouterr().err
    mine.save(4, filled("mine again"))
    assert steps(mine.folder) == ["checkpoint-000002", "checkpoint-000004"]
