"""What is written, read back: metrics.jsonl, samples, TensorBoard, the offline W&B file, what a W&B server receives."""

import dataclasses
import json
import os
import struct
import subprocess
import sys
import time
from io import FileIO

import pytest
from test_trainer import make_config
from wandb_server import WandbServer

from rlhf.config import DataConfig, EvaluateConfig, InspectConfig, ModelConfig, TrackingConfig
from rlhf.errors import UserError
from rlhf.ppo import run_ppo
from rlhf.rewards import RewardSpec
from rlhf.runs import (
    difference,
    git_commit,
    is_done,
    mark_done,
    mask_secrets,
    open_run,
    read_jsonl,
    staged,
    versions,
    write_atomically,
)
from rlhf.tracking import Tracker, wandb_mode


def finished_wandb(folder) -> list:
    """The records of the offline run in a folder; its process may still be writing when `finish` returns."""
    [file] = folder.rglob("*.wandb")
    for _ in range(100):
        records = read_wandb(file)
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        time.sleep(0.1)
    raise TimeoutError(f"{file} has no exit record after 10 s")


def read_wandb(file) -> list:
    """The records of a .wandb file: LevelDB's log format (32 KiB blocks; crc, length, type) behind a 7-byte header."""
    from wandb.proto import wandb_internal_pb2

    data, position, pending, records = file.read_bytes(), 7, b"", []
    while position + 7 <= len(data):
        left_in_block = 32768 - position % 32768
        length, kind = struct.unpack("<HB", data[position + 4 : position + 7])
        if left_in_block < 7 or kind == 0:
            position += left_in_block
            continue
        pending += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(pending)
            records.append(record)
            pending = b""
    return records


def history(records: list) -> list[dict]:
    """What was logged, a dictionary per step; nested keys are joined by dots."""
    return [
        {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]


def table(folder, row: dict, name: str) -> dict:
    """Columns and data of a table that was logged."""
    [file] = folder.rglob(row[f"{name}.path"])
    return json.loads(file.read_text())


def written(folder) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


class Judge:
    """A reward that needs a key, and can explain itself."""

    def __init__(self, api_key: str, url: str) -> None:
        assert api_key == "planted-in-the-config"

    def __call__(self, prompts, completions, **columns):
        return [len(text) / 100 for text in completions]

    def explain(self, prompt, completion, **columns):
        return f"{len(completion)} characters"


@pytest.fixture(scope="module")
def run(tiny_models, tmp_path_factory):
    """A PPO run with everything switched on, and secrets wherever a user may put them."""
    from conftest import TEXTS, write_jsonl

    folder = tmp_path_factory.mktemp("everything")
    data = write_jsonl(folder / "pairs.jsonl", [{"prompt": text.split("\n")[0]} for text in TEXTS])
    args = {"api_key": "planted-in-the-config", "url": "https://judge/?key=planted-in-the-environment"}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_MODE")
        patch.setenv("MY_SERVICE_TOKEN", "planted-in-the-environment")
        patch.setattr("sys.argv", ["rlhf", "--rewards", "planted-on-the-command-line"])
        run_ppo(
            make_config(
                tiny_models["gpt2"],
                data,
                output_dir=str(folder / "run"),
                updates=3,
                rewards=[RewardSpec(path="test_tracking.Judge", name="judge", args=args)],
                inspect=InspectConfig(prompts=2, every=2),
                tracking=TrackingConfig(wandb="offline", samples=3),
            )
        )
    return folder / "run"


def test_wandb_has_metrics_tables_config_and_versions(run):
    records = finished_wandb(run)
    rows = history(records)
    metrics = read_jsonl(run / "metrics.jsonl")
    assert [row["_step"] for row in rows] == [1, 2, 3]
    for row, expected in zip(rows, metrics, strict=True):
        assert {name: row[name] for name in expected} == expected
        samples = [sample for sample in read_jsonl(run / "samples.jsonl") if sample["step"] == row["step"]]
        shown = table(run, row, "samples")
        assert [dict(zip(shown["columns"], values, strict=True)) for values in shown["data"]] == samples
        assert len(samples) == 3
    [config] = [record.run.config for record in records if record.WhichOneof("record_type") == "run"]
    config = {item.key: json.loads(item.value_json) for item in config.update}
    assert config["batch_size"] == 8
    assert config["rewards"][0]["args"] == {"api_key": "***", "url": "***"}
    assert config["versions"] == versions()


def test_wandb_has_the_inspected_responses_with_their_explanations(run):
    for row in history(finished_wandb(run)):
        shown = table(run, row, "inspected")  # due at updates 1, 2 and 3: first, every second, last
        assert shown["columns"] == ["step", "prompt", "response", "score", "reward/judge", "explanation"]
        stored = read_jsonl(run / "rollouts" / f"{row['step']:06d}" / "rows.jsonl")
        assert [values[2] for values in shown["data"]] == [entry["response"] for entry in stored]
        for step, _, response, score, reward, explanation in shown["data"]:
            assert step == row["step"]
            assert score == pytest.approx(len(response) / 100)
            assert reward == len(response) / 100
            assert f"{len(response)} characters" in explanation


def test_tensorboard_has_the_same(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    metrics = read_jsonl(run / "metrics.jsonl")
    for name in metrics[0].keys() - {"step"}:
        shown = [(e.step, e.value) for e in events.Scalars(name)]
        assert shown == [(row["step"], pytest.approx(row[name], rel=1e-6)) for row in metrics]
    [config] = events.Tensors("config/text_summary")
    assert '"batch_size": 8' in config.tensor_proto.string_val[0].decode()
    assert versions()["torch"] in config.tensor_proto.string_val[0].decode()
    inspected = events.Tensors("inspected/text_summary")
    assert [event.step for event in inspected] == [1, 2, 3]
    explanation = read_jsonl(run / "rollouts" / "000003" / "rows.jsonl")[0]["explanation"].splitlines()[-1]
    assert f"    {explanation}" in inspected[-1].tensor_proto.string_val[0].decode()


def test_no_secret_is_in_any_file_of_a_run(run):
    files = written(run)
    assert any(name.endswith(".wandb") for name in files)
    assert any("tfevents" in name for name in files)
    assert not [name for name, content in files.items() if b"planted" in content]


def test_versions_are_written_at_the_start_and_at_the_end(run):
    assert json.loads((run / "versions.json").read_text()) == versions()
    assert json.loads((run / "done.json").read_text())["versions"] == versions()
    assert {"rlhf", "torch", "trl", "python"} <= versions().keys()


def test_the_commit_is_that_of_our_own_checkout(tmp_path):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], capture_output=True, text=True)
        return done.stdout.strip()

    git("init")
    (tmp_path / "file").write_text("1")
    (tmp_path / "package").mkdir()
    git("add", "file")
    git("commit", "-m", "one")
    git("tag", "v1")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "file").write_text("2")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD") + "-dirty"
    assert git_commit(tmp_path / "package") is None  # an installed package inside somebody else's repository


def test_a_warning_is_an_alert(tmp_path):
    with Tracker(tmp_path, "ppo", TrackingConfig(tensorboard=False, wandb="offline"), {}) as tracker:
        tracker.log_warning("kl", "too far", 3)
    [alert] = [record.alert for record in finished_wandb(tmp_path) if record.WhichOneof("record_type") == "alert"]
    assert (alert.title, alert.text, alert.level) == ("kl", "too far", "WARN")


LOG = """
import os, signal, subprocess, sys
from pathlib import Path
from rlhf import tracking
from rlhf.config import TrackingConfig
tracking.WANDB_TIMEOUT_S = 3.0
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


def steps_and_values(rows: list[dict]) -> list[tuple[int, float]]:
    return [(row["step"], row["objective/kl"]) for row in rows]


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


@pytest.mark.slow
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


def test_metrics_are_on_disk_at_once(tmp_path):
    tracker = Tracker(tmp_path, "ppo", TrackingConfig(tensorboard=False), {})
    tracker.log({"objective/kl": 0.5}, 1)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "objective/kl": 0.5}
    tracker.log_samples([{"prompt": "p", "response": "é"}], 1)
    assert json.loads((tmp_path / "samples.jsonl").read_text()) == {"step": 1, "prompt": "p", "response": "é"}
    tracker.finish()


def test_other_ranks_write_nothing(tmp_path):
    tracker = Tracker(tmp_path, "ppo", TrackingConfig(), {}, active=False)
    tracker.log({"a": 1.0}, 1)
    tracker.log_samples([{"prompt": "p"}], 1)
    tracker.finish()
    assert not list(tmp_path.iterdir())


def test_tensorboard_file_holds_the_same_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = Tracker(tmp_path, "ppo", TrackingConfig(), {})
    for step in (1, 2):
        tracker.log({"objective/kl": step / 4}, step)
    tracker.finish()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("objective/kl")] == [(1, 0.25), (2, 0.5)]


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
    monkeypatch.setattr("rlhf.tracking.WANDB_TIMEOUT_S", 1.0)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.delenv("WANDB_MODE")
    tracker = Tracker(tmp_path, "ppo", TrackingConfig(tensorboard=False, wandb="online"), {})
    tracker.log({"objective/kl": 0.25}, 1)
    tracker.finish()
    assert "logging offline" in capsys.readouterr().err
    assert list(tmp_path.rglob("offline-run-*"))


def test_secrets_are_masked(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "from-the-environment")
    monkeypatch.setenv("SHORT_TOKEN", "cat")
    config = {"hf_token": "a", "nested": [{"password": "b", "tokens": 3}], "max_prompt_tokens": 5, "empty_token": None}
    assert mask_secrets(config | {"header": "Bearer from-the-environment", "text": "concatenate"}) == {
        "hf_token": "***",
        "nested": [{"password": "***", "tokens": 3}],
        "max_prompt_tokens": 5,
        "empty_token": None,
        "header": "***",
        "text": "concatenate",
    }


def test_another_secret_is_not_another_run(tmp_path):
    def config(**args: str) -> EvaluateConfig:
        rewards = [RewardSpec(path="keywords", args=args)]
        return EvaluateConfig(model=ModelConfig(name_or_path="gpt2"), data=DataConfig(train="x"), rewards=rewards)

    open_run(str(tmp_path / "run"), config(api_key="one", word="a"))
    open_run(str(tmp_path / "run"), config(api_key="two", word="a"))
    assert "one" not in (tmp_path / "run" / "config.yaml").read_text()
    with pytest.raises(ValueError, match=r"args\.word was 'a' and is 'b'"):
        open_run(str(tmp_path / "run"), config(api_key="one", word="b"))


def test_a_run_folder_knows_its_config(tmp_path):
    folder = open_run(str(tmp_path / "run"), TrackingConfig())
    assert not is_done(folder)
    mark_done(folder, 1.5)
    assert is_done(open_run(str(tmp_path / "run"), TrackingConfig()))
    with pytest.raises(ValueError, match="samples was 4 and is 5"):
        open_run(str(tmp_path / "run"), TrackingConfig(samples=5))


def test_a_moved_run_is_still_the_same_run(tmp_path):
    model, data = ModelConfig(name_or_path="gpt2"), DataConfig(train="x")
    evaluation = EvaluateConfig(output_dir="there", model=model, data=data, rewards=[])
    open_run(str(tmp_path / "there"), evaluation)
    (tmp_path / "there").rename(tmp_path / "moved")
    open_run(str(tmp_path / "moved"), dataclasses.replace(evaluation, output_dir="moved"))
    with pytest.raises(ValueError, match="seed was 1234 and is 5"):
        open_run(str(tmp_path / "moved"), dataclasses.replace(evaluation, seed=5))


def test_difference_names_the_nested_key():
    assert difference({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}) == "a.b.1 was 2 and is 3"
    assert difference({"a": [1]}, {"a": [1, 3]}) == "a was [1] and is [1, 3]"
    assert difference({"a": [{"b": 1}]}, {"a": [{"b": 1, "later": None}]}) == ""
    assert difference({"a": 1}, {"a": 1}) == ""
    assert difference({"a": 1, "b": 2}, {"a": 1}) == "b was 2 and is None"


def test_atomic_write_leaves_nothing_behind(tmp_path):
    write_atomically(tmp_path / "file", "one")
    write_atomically(tmp_path / "file", "two")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "two"


def test_a_staged_folder_appears_whole_or_not_at_all(tmp_path):
    with staged(tmp_path / "model") as staging:
        (staging / "weights").write_text("old")
        assert not (tmp_path / "model").exists()

    def interrupted() -> None:
        with staged(tmp_path / "model") as staging:
            (staging / "weights").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "model" / "weights").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_a_killed_process_was_writing_is_written_over(tmp_path):
    """Its names must not depend on the process: every kill would leave one more unfinished model."""
    (tmp_path / ".file.unfinished").write_text("half")
    (tmp_path / ".model.unfinished").mkdir()
    (tmp_path / ".model.unfinished" / "half").write_text("")
    write_atomically(tmp_path / "file", "whole")
    with staged(tmp_path / "model") as staging:
        (staging / "weights").write_text("whole")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "model", "weights"]


def test_a_run_that_was_killed_while_it_was_opened_can_be_opened(tmp_path):
    open_run(str(tmp_path / "run"), TrackingConfig())
    (tmp_path / "run" / "config.yaml").rename(tmp_path / "run" / ".config.yaml.unfinished")
    open_run(str(tmp_path / "run"), TrackingConfig())
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.yaml", "versions.json"]
    (tmp_path / "run" / "config.yaml").rename(tmp_path / "run" / "notes.txt")
    with pytest.raises(UserError, match="holds no run of ours"):
        open_run(str(tmp_path / "run"), TrackingConfig())


@pytest.mark.parametrize("content", [b"", b"a: [", b"\xff\xfe\x00", b"just text"])
def test_a_damaged_config_is_refused_in_one_line(tmp_path, content):
    folder = open_run(str(tmp_path / "run"), TrackingConfig())
    (folder / "config.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.yaml cannot be read \(.*\); put it back") as error:
        open_run(str(folder), TrackingConfig())
    assert "\n" not in str(error.value)
    assert (folder / "config.yaml").read_bytes() == content


def test_other_versions_are_named_unless_the_run_is_done(tmp_path, capsys):
    folder = open_run(str(tmp_path / "run"), TrackingConfig())
    begun = versions() | {"torch": "1.0"}
    (folder / "versions.json").write_text(json.dumps(begun | {"commit": "another"}))
    open_run(str(folder), TrackingConfig())
    assert f"was begun with torch 1.0, now {versions()['torch']}:" in capsys.readouterr().err
    mark_done(folder, 1.0)
    open_run(str(folder), TrackingConfig())
    assert capsys.readouterr().err == ""


def test_a_full_disk_is_one_line_for_every_file(tmp_path):
    """/dev/full takes nothing; a file that was refused must not refuse again, without a line, when it is closed."""
    tracker = Tracker(tmp_path, "ppo", TrackingConfig(wandb="disabled", tensorboard=False), {})
    tracker.metrics_file.close()
    tracker.metrics_file = FileIO("/dev/full", "a")
    with pytest.raises(UserError, match=r"/dev/full cannot be written \(No space left on device\)"), tracker:
        tracker.log({"objective/kl": 1.0}, 1)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="file/model cannot be written \\(Not a directory\\)"),
        staged(tmp_path / "file" / "model"),
    ):
        pass
    with pytest.raises(UserError, match=r"file/x\.json cannot be written \(Not a directory\)"):
        write_atomically(tmp_path / "file" / "x.json", "{}")


@pytest.mark.parametrize("ending", [b'{"step": 3, "x', b"\0" * 50, b"\0" * 50 + b"\n", b"\xff\n", b"[]\n", b"\n"])
def test_what_a_crash_left_behind_the_last_row_is_dropped(tmp_path, ending):
    settings = TrackingConfig(wandb="disabled", tensorboard=False)
    with Tracker(tmp_path, "ppo", settings, {}) as tracker:
        for step in (1, 2):
            tracker.log({"objective/kl": step / 4}, step)
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(ending)
    with Tracker(tmp_path, "ppo", settings, {}, resumed_at=2) as tracker:
        tracker.log({"objective/kl": 0.75}, 3)
    assert steps_and_values(read_jsonl(tmp_path / "metrics.jsonl")) == [(1, 0.25), (2, 0.5), (3, 0.75)]


def test_a_damaged_row_in_the_middle_is_named_and_nothing_is_dropped(tmp_path):
    content = b'{"step": 1}\n{"st\n{"step": 3}\n'
    (tmp_path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2 cannot be read"):
        Tracker(tmp_path, "ppo", TrackingConfig(wandb="disabled", tensorboard=False), {}, resumed_at=3)
    assert (tmp_path / "metrics.jsonl").read_bytes() == content


def test_tensorboard_does_not_cost_the_run(tmp_path, capsys):
    with Tracker(tmp_path, "ppo", TrackingConfig(wandb="disabled"), {}) as tracker:
        tracker.board.close()
        tracker.board.add_scalar = None  # as broken as can be
        for step in (1, 2):
            tracker.log({"objective/kl": step / 4}, step)
    assert capsys.readouterr().err.count("TensorBoard has failed") == 1
    assert steps_and_values(read_jsonl(tmp_path / "metrics.jsonl")) == [(1, 0.25), (2, 0.5)]
