"""PPO measured on held-out prompts while it trains: curves, the best policy, early stopping."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_data import write_pairs
from tiny_runs import COUNT_E, Crash, make_config

from rlhf.config import CheckpointConfig, DataConfig, EvaluateConfig, InspectConfig, ModelConfig
from rlhf.config.evaluation import PolicyEvaluation
from rlhf.rewards import RewardSpec
from rlhf.runs.files import read_jsonl
from rlhf.stages.evaluate import run_evaluate
from rlhf.stages.ppo import run_ppo

LUCK = RewardSpec(path="tiny_runs.draws_a_number", name="luck", weight=0.0)
EVALUATION = PolicyEvaluation(every=2, prompts=4, num_generations=8, metric="reward/count_e")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.relative_to(folder)}/{name}": tensor
        for file in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def trained(row: dict) -> dict:
    return {name: x for name, x in row.items() if not name.startswith(("time/", "held_out/"))}


def measured(folder: Path) -> dict[int, dict]:
    """Step -> held-out means of a run."""
    rows = {row["step"]: row for row in read_jsonl(folder / "metrics.jsonl")}
    means = {step: {n[9:]: x for n, x in row.items() if n.startswith("held_out/")} for step, row in rows.items()}
    return {step: of_step for step, of_step in means.items() if of_step}


@pytest.fixture(scope="module")
def config(tiny_models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("held_out")
    data = write_pairs(folder)
    config = make_config(
        tiny_models["gpt2"],
        data,
        rewards=[COUNT_E, LUCK],
        output_dir=str(folder / "run"),
        num_updates=5,
        checkpoint=CheckpointConfig(save_steps=2),
        inspect=InspectConfig(prompts=0),
    )
    return dataclasses.replace(config, data=DataConfig(train=data, eval=data), evaluation=EVALUATION)


@pytest.fixture(scope="module")
def run(config) -> Path:
    return run_ppo(config).parent


def test_measured_before_every_so_many_and_after_the_last(run):
    assert list(measured(run)) == [0, 2, 4, 5]
    rows = read_jsonl(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert [row["step"] for row in rows if row.get("time/held_out", 0) > 0] == [0, 2, 4, 5]
    before = measured(run)[0]
    assert list(before) == ["score", "reward/count_e", "reward/luck", "length", "kl", "entropy", "eos_rate"]
    assert before["kl"] == 0  # adapters that do nothing yet
    assert before["score"] == pytest.approx(before["reward/count_e"])


def test_it_trains_like_a_run_without(config, run, tmp_path):
    without = dataclasses.replace(config, output_dir=str(tmp_path / "run"), evaluation=None)
    plain = run_ppo(without).parent
    rows = [trained(row) for row in read_jsonl(run / "metrics.jsonl")[1:]]
    assert [trained(row) for row in read_jsonl(plain / "metrics.jsonl")] == rows
    assert same(weights(plain / "policy"), weights(run / "policy"))
    assert not (plain / "policy-best").exists()


def test_the_best_policy_is_stored_as_it_was_measured(config, run, tmp_path):
    """`rlhf evaluate` of policy-best gives the very numbers of the evaluation that found it."""
    record = json.loads((run / "policy-best" / "held_out.json").read_text())
    means = measured(run)
    best = max(means, key=lambda step: means[step]["reward/count_e"])
    assert (record["step"], record["metric"], record["means"]) == (best, "reward/count_e", means[best])
    again = run_evaluate(
        EvaluateConfig(
            output_dir=str(tmp_path),
            model=ModelConfig(name_or_path=str(run / "policy-best")),
            data=config.data,
            rewards=[COUNT_E],
            sampling=config.sampling,
            prompts=4,
            num_generations=8,
            batch_size=8,
        )
    ).means
    assert again["count_e"] == means[best]["reward/count_e"]
    assert again["kl"] == pytest.approx(means[best]["kl"], abs=1e-5)


@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_crash_changes_nothing(config, run, tmp_path, at):
    broken = dataclasses.replace(config, output_dir=str(tmp_path / "run"))
    with pytest.raises(RuntimeError, match="power failure"):
        run_ppo(broken, callbacks=[Crash(at)])
    again = run_ppo(broken).parent
    assert measured(again) == measured(run)
    for folder in ("policy", "policy-best"):
        assert same(weights(again / folder), weights(run / folder))
    assert (again / "policy-best" / "held_out.json").read_text() == (run / "policy-best" / "held_out.json").read_text()
