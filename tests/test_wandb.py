"""W&B: what its server receives, and what a server, a process or a key that is not there costs a run."""

import os
import subprocess
import sys
import time

import pytest
from wandb_files import finished_wandb, history, read_wandb, steps_and_values
from wandb_server import WandbServer

from rlhf.config import TrackingConfig
from rlhf.runs.files import read_jsonl
from rlhf.tracking.mirrors import wandb_mode
from rlhf.tracking.tracker import Tracker


def test_a_warning_is_an_alert(tmp_path):
    with Tracker(tmp_path, "ppo", TrackingConfig(tensorboard=False, wandb="offline"), {}) as tracker:
        tracker.log_warning("kl", "too far", 3)
    [alert] = [record.alert for record in finished_wandb(tmp_path) if record.WhichOneof("record_type") == "alert"]
    assert (alert.title, alert.text, alert.level) == ("kl", "too far", "WARN")


LOG = """
import os, signal, subprocess, sys
from pathlib import Path
from rlhf.tracking import mirrors
from rlhf.tracking import tracker as tracking
from rlhf.config import TrackingConfig
mirrors.WANDB_TIMEOUT_S = 3.0
folder, resumed_at, last, end = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
settings = TrackingConfig(tensorboard=False, wandb="online")
tracker = tracking.Tracker(folder, "ppo", settings, {}, resumed_at=resumed_at or None)
for step in range(resumed_at + 1, last + 1):
    tracker.log({"objective/kl": step / 4}, step)
    if end == "killed" and step == 2:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        [core] = [int(pid) for pid in children if "wandb" in Path(f"/proc/{pid}/comm").read_text()]
        os.kill(core, signal.SIGKILL)
        os.waitpid(core, 0)
    if end == "hangs":
        print("logged", flush=True)
        sys.stdin.readline()
tracker.finish()
"""


@pytest.fixture
def server():
    server = WandbServer()
    yield server
    server.hangs = False
    server.shutdown()


def start_online(server: WandbServer, folder, resumed_at: int, last: int, end: str = "well") -> subprocess.Popen:
    """A process that logs to the server: one per run, as in life (and W&B reads its environment once in a process)."""
    own = {"WANDB_API_KEY": "x" * 40, "WANDB_BASE_URL": server.url, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", LOG, str(folder), str(resumed_at), str(last), end]
    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")} | own
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def log_online(*arguments) -> str:
    """What the process said on standard error; it has to end well."""
    process = start_online(*arguments)
    _, said = process.communicate("\n", timeout=120)
    assert process.returncode == 0, said
    return said


@pytest.mark.slow
def test_a_resumed_online_run_goes_on_and_loses_no_row(tmp_path, server):
    log_online(server, tmp_path, 0, 4)
    first = (tmp_path / "wandb_id.txt").read_text()
    assert steps_and_values(server.rows) == [(s, s / 4) for s in (1, 2, 3, 4)]
    del server.rows[2:]  # as if two rows had still been on their way when the process was killed
    log_online(server, tmp_path, 3, 5)
    assert (tmp_path / "wandb_id.txt").read_text() == server.run == first
    assert steps_and_values(server.rows) == [(s, s / 4) for s in (1, 2, 3, 4, 5)]


@pytest.mark.slow
def test_a_resumed_run_does_not_send_what_the_server_has(tmp_path, server):
    log_online(server, tmp_path, 0, 3)
    log_online(server, tmp_path, 1, 4)
    assert [row["step"] for row in server.rows] == [1, 2, 3, 4]


@pytest.mark.long
def test_a_server_that_never_answers_costs_seconds_not_the_run(tmp_path, server):
    server.hangs = True
    assert "logging offline" in log_online(server, tmp_path, 0, 2)
    assert steps_and_values(read_jsonl(tmp_path / "metrics.jsonl")) == [(1, 0.25), (2, 0.5)]
    assert list(tmp_path.rglob("offline-run-*"))


@pytest.mark.long
def test_a_server_that_hangs_later_cannot_keep_a_run_from_ending(tmp_path, server):
    process = start_online(server, tmp_path, 0, 1, "hangs")
    assert process.stdout.readline() == "logged\n"
    server.hangs = True
    started = time.monotonic()
    process.communicate("\n", timeout=120)
    assert process.returncode == 0
    assert time.monotonic() - started < 40  # 3 s to finish, as much to tear down, on a busy machine
    assert steps_and_values(read_jsonl(tmp_path / "metrics.jsonl")) == [(1, 0.25)]


def test_a_run_outlives_the_process_of_wandb(tmp_path, server):
    said = log_online(server, tmp_path, 0, 4, "killed")
    assert said.count("the run goes on, with metrics.jsonl") == 1
    assert [row["step"] for row in read_jsonl(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]


def test_a_resumed_offline_run_has_every_row_in_its_last_file(tmp_path):
    settings = TrackingConfig(tensorboard=False, wandb="offline")
    with Tracker(tmp_path, "ppo", settings, {}) as tracker:
        for step in (1, 2):
            tracker.log({"objective/kl": step / 4}, step)
    finished_wandb(tmp_path)
    before = set(tmp_path.rglob("*.wandb"))
    with Tracker(tmp_path, "ppo", settings, {}, resumed_at=1) as tracker:
        tracker.log({"objective/kl": 0.75}, 2)
    [file] = set(tmp_path.rglob("*.wandb")) - before
    assert file.name in {name.name for name in before}  # the same id
    for _ in range(100):
        rows = history(read_wandb(file))
        if len(rows) == 2:
            break
        time.sleep(0.1)
    assert [(row["step"], row["objective/kl"]) for row in rows] == [(1, 0.25), (2, 0.75)]


def test_a_failing_run_is_closed_and_the_next_one_has_a_file_of_its_own(tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    settings = TrackingConfig(tensorboard=False, wandb="offline")
    tracker = Tracker(tmp_path / "first", "ppo", settings, {})
    tracker.log({"objective/kl": 0.25}, 1)
    tracker.__exit__(KeyError, KeyError(), None)
    with Tracker(tmp_path / "second", "ppo", settings, {}) as tracker:
        tracker.log({"objective/kl": 0.5}, 1)
    for folder, exit_code in (("first", 1), ("second", 0)):
        records = finished_wandb(tmp_path / folder)
        assert [record.WhichOneof("record_type") for record in records].count("history") == 1
        [last] = [record.exit for record in records if record.WhichOneof("record_type") == "exit"]
        assert last.exit_code == exit_code


def test_wandb_is_offline_unless_logged_in(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE")
    assert wandb_mode(TrackingConfig(wandb="auto")) == "offline"
    assert wandb_mode(TrackingConfig(wandb="online")) == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode(TrackingConfig(wandb="auto")) == "disabled"


def test_an_unreachable_server_costs_seconds_not_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("rlhf.tracking.mirrors.WANDB_TIMEOUT_S", 1.0)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.delenv("WANDB_MODE")
    tracker = Tracker(tmp_path, "ppo", TrackingConfig(tensorboard=False, wandb="online"), {})
    tracker.log({"objective/kl": 0.25}, 1)
    tracker.finish()
    assert "logging offline" in capsys.readouterr().err
    assert list(tmp_path.rglob("offline-run-*"))
