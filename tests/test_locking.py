"""Two processes on one run folder: the second is refused in one line, and nobody is kept out by a dead one."""

import contextlib
import dataclasses
import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_data import write_jsonl
from tiny_runs import command_line, make_config

from rlhf.cli import main
from rlhf.errors import UserError
from rlhf.runs.folder import LOCK_FILE
from rlhf.runs.locking import locked
from rlhf.stages.ppo import run_ppo

HOLD = """
import os, sys, time
from rlhf.runs.locking import locked
with locked(sys.argv[1]):
    print(os.getpid(), flush=True)
    {forking}
    time.sleep(100)
"""
FORK = "os.fork() or print('child', flush=True)"
TAKE_TURNS = """
import sys, time
from pathlib import Path
from rlhf.errors import UserError
from rlhf.runs.locking import locked
folder, inside, turns = sys.argv[1], Path(sys.argv[1]).with_suffix(".inside"), 0
while turns < 100:
    try:
        with locked(folder):
            inside.touch(exist_ok=False)  # fails if another process is in there
            time.sleep(0.002)
            inside.unlink()
            turns += 1
    except UserError as refused:
        assert "is in use by" in str(refused)
"""


@pytest.fixture
def started():
    """Starts Python programs; kills what is left of them, and of what they have forked."""
    processes = []

    def start(program: str, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-c", program, *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        with contextlib.suppress(ProcessLookupError):  # it has ended, and left nobody
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


OPTIONS = {
    "sft": "--model.name_or_path {gpt2} --data.train {pairs} --num_train_epochs 1",
    "reward": "--model.name_or_path {gpt2} --data.train {preferences} --data.eval {preferences}",
    "ppo": "--model.name_or_path {gpt2} --data.train {pairs} --rewards {rewards}",
    "evaluate": "--model.name_or_path {gpt2} --data.train {pairs} --rewards {rewards}",
    "pipeline": "--sft.model.name_or_path {gpt2} --sft.data.train {pairs} --ppo.data.train {pairs} "
    "--ppo.data.eval {pairs} --ppo.rewards {rewards}",
}


@pytest.mark.parametrize("stage", OPTIONS)
def test_every_stage_is_refused_while_another_process_is_in_the_folder(
    stage, started, tiny_models, pairs, tmp_path, capsys
):
    folder = tmp_path / "run"
    other = started(HOLD.format(forking=""), str(folder)).stdout.readline().strip()
    before = contents(folder)
    preferences = write_jsonl(tmp_path / "preferences.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    rewards = '[{"path":"length","args":{"maximum":9}}]'
    options = OPTIONS[stage].format(gpt2=tiny_models["gpt2"], pairs=pairs, preferences=preferences, rewards=rewards)
    with pytest.raises(SystemExit) as ended:
        main([stage, "--output_dir", str(folder), *options.split()])
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"rlhf {stage}: error: {folder} is in use by process {other} on ")
    assert line.endswith("; wait for that run, stop it, or choose another output_dir")
    assert contents(folder) == before


@pytest.mark.slow
def test_a_real_run_keeps_others_out_until_it_is_killed(tiny_models, pairs, tmp_path, capsys):
    """A second command, of the same config, is refused while the first one trains, and goes on when that is dead."""
    config = dataclasses.replace(make_config(tiny_models["gpt2"], pairs), num_updates=500)
    command = command_line(config, tmp_path)
    environment = os.environ | {"PYTHONPATH": f"tests{os.pathsep}.", "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(
        [sys.executable, "-m", "rlhf", *command], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert first.stderr.readline().startswith("ppo 1/500")
    with pytest.raises(SystemExit):
        main(command)
    assert f"{tmp_path / 'run'} is in use by process {first.pid} on " in capsys.readouterr().err
    first.kill()
    first.communicate()
    assert (tmp_path / "run" / LOCK_FILE).exists()
    with pytest.raises(UserError, match="updates was 500 and is 2"):  # past the lock
        run_ppo(dataclasses.replace(config, output_dir=str(tmp_path / "run"), num_updates=2))


@pytest.mark.parametrize("forking", ["", FORK])
def test_a_killed_process_holds_no_lock_nor_do_its_children(started, tmp_path, forking):
    holder = started(HOLD.format(forking=forking), str(tmp_path))
    assert int(holder.stdout.readline()) == holder.pid
    assert not forking or holder.stdout.readline() == "child\n"
    with pytest.raises(UserError, match="is in use"), locked(str(tmp_path)):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with locked(str(tmp_path)):
        assert (tmp_path / LOCK_FILE).read_text().startswith(f"process {os.getpid()} on ")
    assert not (tmp_path / LOCK_FILE).exists()


def test_an_error_opens_the_folder_again(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(str(tmp_path / "run")):
        raise ZeroDivisionError
    with locked(str(tmp_path / "run")):
        pass
    assert not list((tmp_path / "run").iterdir())


def test_never_two_at_a_time(started, tmp_path):
    """Each process takes a hundred turns, and finds nobody inside."""
    processes = [started(TAKE_TURNS, str(tmp_path / "run")) for _ in range(3)]
    assert [process.wait(timeout=100) for process in processes] == [0, 0, 0]


def test_other_peoples_folders_are_not_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with locked(str(tmp_path)):
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_disk_without_locks_is_said_to_be_one(tmp_path, monkeypatch, capsys):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(str(tmp_path)):
        assert capsys.readouterr().err == f"{tmp_path} is on a disk without locks; let no other run write there\n"
