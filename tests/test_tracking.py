"""What a run writes, read back: metrics.jsonl, samples, TensorBoard, the offline W&B file."""

import json
from io import FileIO

import pytest
from tiny_data import TEXTS, write_jsonl
from tiny_runs import make_config
from wandb_files import finished_wandb, history, steps_and_values, table

from rlhf.config import InspectConfig, TrackingConfig
from rlhf.errors import UserError
from rlhf.rewards import RewardSpec
from rlhf.runs.files import read_jsonl
from rlhf.runs.folder import versions
from rlhf.stages.ppo import run_ppo
from rlhf.tracking.tracker import Tracker


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
                num_updates=3,
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


def test_a_full_disk_is_one_line_for_every_file(tmp_path):
    """/dev/full takes nothing; a file that was refused must not refuse again, without a line, when it is closed."""
    tracker = Tracker(tmp_path, "ppo", TrackingConfig(wandb="disabled", tensorboard=False), {})
    tracker.metrics.stream.close()
    tracker.metrics.stream = FileIO("/dev/full", "a")
    with pytest.raises(UserError, match=r"metrics\.jsonl cannot be written \(No space left on device\)"), tracker:
        tracker.log({"objective/kl": 1.0}, 1)


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
        [board] = tracker.mirrors
        board.writer.close()
        board.writer.add_scalar = None  # as broken as can be
        for step in (1, 2):
            tracker.log({"objective/kl": step / 4}, step)
    assert capsys.readouterr().err.count("TensorBoard has failed") == 1
    assert steps_and_values(read_jsonl(tmp_path / "metrics.jsonl")) == [(1, 0.25), (2, 0.5)]
