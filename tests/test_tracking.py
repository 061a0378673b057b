"""What is written, read back: metrics.jsonl, samples, TensorBoard, the offline W&B file."""

import dataclasses
import json
import struct
import time

import pytest

from rlhf.config import DataConfig, EvaluateConfig, ModelConfig, TrackingConfig
from rlhf.runs import difference, is_done, mark_done, open_run, staged, write_atomically
from rlhf.tracking import Tracker, mask_secrets, wandb_mode


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


def test_offline_wandb_run_holds_metrics_samples_and_no_secret(tmp_path, monkeypatch):
    settings = TrackingConfig(tensorboard=False, wandb="offline")
    config = {"learning_rate": 0.1, "hub": {"api_key": "planted-secret"}}
    tracker = Tracker(tmp_path, "ppo", settings, config)
    tracker.log({"objective/kl": 0.25}, 1)
    tracker.log_samples([{"prompt": "p", "response": "r"}], 1)
    tracker.finish()
    records = finished_wandb(tmp_path)
    history = {
        ".".join(item.nested_key) or item.key: json.loads(item.value_json)
        for record in records
        if record.WhichOneof("record_type") == "history"
        for item in record.history.item
    }
    assert history["objective/kl"] == 0.25
    assert any("table-file" in str(value) for value in history.values())
    assert not any(b"planted-secret" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


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


def test_secrets_are_masked():
    config = {"hf_token": "a", "nested": [{"password": "b", "tokens": 3}], "max_prompt_tokens": 5}
    assert mask_secrets(config) == {
        "hf_token": "***",
        "nested": [{"password": "***", "tokens": 3}],
        "max_prompt_tokens": 5,
    }


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
