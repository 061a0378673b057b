"""Run folders: whose they are, which config and versions they were begun with, and no secret in them."""

import dataclasses
import json
import subprocess

import pytest
import yaml

from rlhf.config import DataConfig, EvaluateConfig, ModelConfig, SamplingConfig, TrackingConfig
from rlhf.config.secrets import mask_secrets
from rlhf.errors import UserError
from rlhf.rewards import RewardSpec
from rlhf.runs.folder import difference, git_commit, is_done, mark_done, open_run, versions


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
    (tmp_path / "run" / "evaluation.json").write_text("{}")  # else the run would not have got anywhere
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
    (tmp_path / "there" / "evaluation.json").write_text("{}")
    (tmp_path / "there").rename(tmp_path / "moved")
    open_run(str(tmp_path / "moved"), dataclasses.replace(evaluation, output_dir="moved"))
    with pytest.raises(ValueError, match="seed was 1234 and is 5"):
        open_run(str(tmp_path / "moved"), dataclasses.replace(evaluation, seed=5))


def test_a_start_that_came_to_nothing_does_not_own_the_folder(tmp_path):
    folder = tmp_path / "run"
    open_run(str(folder), TrackingConfig(samples=1))
    (folder / "metrics.jsonl").touch()
    (folder / "tensorboard").mkdir()
    (folder / "tensorboard" / "events.out.tfevents.1").write_text("a config, and no step")
    (folder / "checkpoints").mkdir()
    open_run(str(folder), TrackingConfig(samples=2))
    assert yaml.safe_load((folder / "config.yaml").read_text())["samples"] == 2
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(UserError, match="samples was 2 and is 3"):
        open_run(str(folder), TrackingConfig(samples=3))


@pytest.mark.parametrize("result", ["done.json", "ppo/metrics.jsonl", "checkpoints/checkpoint-000001/manifest.json"])
def test_whatever_a_run_has_come_to_keeps_the_folder(tmp_path, result):
    folder = open_run(str(tmp_path / "run"), TrackingConfig(samples=1))
    (folder / result).parent.mkdir(parents=True, exist_ok=True)
    (folder / result).write_text("{}")
    with pytest.raises(UserError, match="holds a different run"):
        open_run(str(folder), TrackingConfig(samples=2))


def test_a_config_of_somebody_else_is_not_written_over(tmp_path):
    (tmp_path / "config.yaml").write_text("mine: 1\n")
    with pytest.raises(UserError, match="holds a different run"):
        open_run(str(tmp_path), TrackingConfig())
    assert (tmp_path / "config.yaml").read_text() == "mine: 1\n"


def test_difference_names_the_nested_key():
    assert difference({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}) == "a.b.1 was 2 and is 3"
    assert difference({"a": [1]}, {"a": [1, 3]}) == "a was [1] and is [1, 3]"
    assert difference({"a": [{"b": 1}]}, {"a": [{"b": 1, "later": None}]}) == ""
    assert difference({"a": 1}, {"a": 1}) == ""
    assert difference({"a": 1, "b": 2}, {"a": 1}) == "b was 2 and is None"


def test_a_setting_that_came_later_does_not_make_an_old_run_a_different_one(tmp_path):
    """It was run as if the setting had had its default; with another value it would be a different run."""
    old = SamplingConfig(max_new_tokens=7)
    file = open_run(str(tmp_path), old) / "config.yaml"
    settings = yaml.safe_load(file.read_text())
    assert settings.pop("merge_adapters") == "auto"
    file.write_text(yaml.safe_dump(settings))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')  # it has begun
    assert open_run(str(tmp_path), old) == tmp_path
    with pytest.raises(UserError, match=r"\(merge_adapters was 'auto' and is 'never'\)"):
        open_run(str(tmp_path), dataclasses.replace(old, merge_adapters="never"))


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
