"""`rlhf generate` and `rlhf score`: what they write replaces nothing, and has its place before any work is done."""

import json

import pytest
from tiny_runs import make_config

from rlhf.config import GenerateConfig, ModelConfig, SamplingConfig, ScoreConfig
from rlhf.errors import UserError
from rlhf.policy.files import load_policy
from rlhf.rewards import RewardSpec
from rlhf.runs.files import read_jsonl
from rlhf.stages.generate import run_generate
from rlhf.stages.ppo import run_ppo
from rlhf.stages.score import run_score

NOWHERE = ModelConfig(name_or_path="no/such-model")
"""Whoever loads it fails with another message."""


@pytest.fixture(scope="module")
def policy(tiny_models, tmp_path_factory):
    from tiny_data import write_pairs

    folder = tmp_path_factory.mktemp("policy")
    return run_ppo(make_config(tiny_models["gpt2"], write_pairs(folder), output_dir=str(folder / "run"), num_updates=1))


def generate(model, **options):
    options = {"prompt": ["Show"], "sampling": SamplingConfig(max_new_tokens=4)} | options
    return run_generate(GenerateConfig(model=ModelConfig(name_or_path=str(model)), **options))


@pytest.mark.parametrize("place", ["base", "policy", "file"])
def test_a_merged_model_replaces_nothing(tmp_path, place):
    """The base of a policy, above all: its adapters would then be applied twice."""
    target = tmp_path / place
    if place == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"merge_to is .*, which is there already; name a new folder"):
        run_generate(GenerateConfig(model=NOWHERE, prompt=["Show"], merge_to=str(target)))
    assert (target if place == "file" else target / "config.json").read_text() in ("mine", "{}")


def test_a_merged_model_is_there_whole_or_not_at_all(policy, tmp_path, monkeypatch):
    (tmp_path / "merged").mkdir()  # an empty folder will do
    monkeypatch.setattr("rlhf.stages.generate.save_merged", lambda policy, place: (place / "half").touch() or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generate(policy, merge_to=str(tmp_path / "merged"))
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]
    assert not any((tmp_path / "merged").iterdir())
    monkeypatch.undo()
    generate(policy, merge_to=str(tmp_path / "merged"))
    generate(tmp_path / "merged")
    load_policy(policy)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("", "output is .*, which is a folder; name a file"),
        ("file/o.jsonl", r"cannot be written \((File exists|Not a directory)\)"),
    ],
)
def test_a_file_has_its_place_before_the_work(tmp_path, output, message):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=message):
        run_generate(GenerateConfig(model=NOWHERE, prompt=["Show"], output=str(tmp_path / output)))
    scored = ScoreConfig(input="no_such.jsonl", output=str(tmp_path / output), rewards=[RewardSpec(path="length")])
    with pytest.raises(UserError, match=message):
        run_score(scored)


def test_an_empty_response_is_scored_like_any_other(tmp_path):
    rows = [{"prompt": "p", "completion": "", "label": 1}, {"prompt": "q", "completion": "ab cd"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = ScoreConfig(input=str(tmp_path / "in.jsonl"), output=str(tmp_path / "out.jsonl"),
                         rewards=[RewardSpec(path="tiny_runs.count_e", name="reward", weight=3.0),
                                  RewardSpec(path="length", args={"maximum": 10})])  # fmt: skip
    means = run_score(config)
    scored = read_jsonl(tmp_path / "out.jsonl")
    assert [row["completion"] for row in scored] == ["", "ab cd"]
    assert means["reward"] == pytest.approx(sum(row["reward"] for row in scored) / 2)
    assert means["reward/reward"] == pytest.approx(sum(row["rewards"]["reward"] for row in scored) / 2)


@pytest.mark.parametrize("row", [{"prompt": "p"}, {"prompt": "p", "completion": None}])
def test_no_response_is_not_an_empty_one(tmp_path, row):
    (tmp_path / "in.jsonl").write_text(json.dumps(row) + "\n")
    config = ScoreConfig(
        input=str(tmp_path / "in.jsonl"), output=str(tmp_path / "o"), rewards=[RewardSpec(path="length")]
    )
    with pytest.raises(UserError, match="completion is missing"):
        run_score(config)
