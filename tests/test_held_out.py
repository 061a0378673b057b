"""PPO measured on held-out prompts while it trains: curves, the best policy, early stopping."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from processes import launch
from safetensors.torch import load_file
from tiny_data import write_pairs
from tiny_runs import COUNT_E, Crash, command_line, make_config

from rlhf.config import CheckpointConfig, DataConfig, EvaluateConfig, InspectConfig, ModelConfig, ValueWarmup
from rlhf.config.evaluation import PassConfig, PolicyEvaluation, SFTEvaluation
from rlhf.errors import UserError
from rlhf.evaluation.best import Best
from rlhf.report.load import read_run
from rlhf.report.model_card import add_held_out
from rlhf.report.write import write_report
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


@pytest.mark.parametrize("at", [3, 5])
def test_a_crash_changes_nothing(config, run, tmp_path, at):
    broken = dataclasses.replace(config, output_dir=str(tmp_path / "run"))
    with pytest.raises(RuntimeError, match="power failure"):
        run_ppo(broken, callbacks=[Crash(at)])
    again = run_ppo(broken).parent
    assert measured(again) == measured(run)
    for folder in ("policy", "policy-best"):
        assert same(weights(again / folder), weights(run / folder))
    assert (again / "policy-best" / "held_out.json").read_text() == (run / "policy-best" / "held_out.json").read_text()


def test_killed_before_the_best_policy_was_stored(config, run, tmp_path):
    """A checkpoint holds that it is the best, and the policy itself."""
    broken = dataclasses.replace(config, output_dir=str(tmp_path / "run"))
    with pytest.raises(RuntimeError, match="power failure"):
        run_ppo(broken, callbacks=[Crash(3)])
    shutil.rmtree(tmp_path / "run" / "policy-best")
    again = run_ppo(broken).parent
    assert same(weights(again / "policy-best"), weights(run / "policy-best"))


def test_patience_ends_the_run_for_good(config, tmp_path, capsys):
    settings = PolicyEvaluation(every=1, prompts=4, num_generations=8, metric="reward/count_e", patience=2)
    config = dataclasses.replace(config, output_dir=str(tmp_path / "run"), num_updates=20, evaluation=settings)
    run = run_ppo(config).parent
    said = capsys.readouterr()
    means = measured(run)
    best = max(means, key=lambda step: means[step]["reward/count_e"])
    assert list(means) == list(range(best + 3))  # two in vain
    assert f"update {best + 2}: held-out reward/count_e has not improved on" in said.err
    assert f"was best after update {best}: " in said.out
    [warning] = read_jsonl(run / "warnings.jsonl")
    assert (warning["name"], warning["step"]) == ("early_stopping", best + 2)
    assert f"update {best + 2} of 20" in (run / "policy" / "README.md").read_text()
    before = weights(run / "policy")
    assert "nothing was done" in (run_ppo(config), capsys.readouterr().out)[1]
    assert same(weights(run / "policy"), before)
    assert list(measured(run)) == list(means)


def test_the_warm_up_of_the_critic_does_not_try_the_patience(config, tmp_path):
    settings = PolicyEvaluation(every=1, prompts=2, metric="reward/count_e", patience=1)
    warmup = ValueWarmup(explained_variance=5.0, max_updates=3)
    config = dataclasses.replace(
        config, output_dir=str(tmp_path / "run"), num_updates=4, evaluation=settings, value_warmup=warmup
    )
    means = measured(run_ppo(config).parent)
    assert list(means) == [0, 1, 2, 3, 4]
    assert means[3]["kl"] == 0 != means[4]["kl"]


def test_a_corrected_config_takes_the_place_of_a_start_that_came_to_nothing(config, tmp_path):
    broken = dataclasses.replace(config, output_dir=str(tmp_path / "run"))
    with pytest.raises(RuntimeError, match="power failure"):
        run_ppo(broken, callbacks=[Crash(1)])
    assert (tmp_path / "run" / "policy-best").is_dir()
    corrected = dataclasses.replace(broken, num_updates=1, evaluation=None)
    folder = run_ppo(corrected).parent
    assert not (folder / "policy-best").exists()
    assert [row["step"] for row in read_jsonl(folder / "metrics.jsonl")] == [1]


def test_passes_and_greedy_decoding_on_the_way(config, tmp_path):
    settings = PolicyEvaluation(
        every=5,
        prompts=2,
        num_generations=3,
        metric="pass@3",
        greedy=True,
        pass_at_k=PassConfig(reward="count_e", threshold=0.01),
    )
    short = dataclasses.replace(config, output_dir=str(tmp_path / "run"), num_updates=1, evaluation=settings)
    for means in measured(run_ppo(short).parent).values():
        assert 0 <= means["pass@1"] <= means["pass@2"] <= means["pass@3"] <= 1
        assert {"greedy/score", "greedy/reward/count_e", "greedy/length", "greedy/eos_rate"} <= means.keys()


POSSIBLE = "score, reward/count_e, reward/luck"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "count_e"}, f"evaluation.metric is 'count_e'; it must be one of: {POSSIBLE}"),
        ({"metric": "pass@2"}, f"evaluation.metric is 'pass@2'; it must be one of: {POSSIBLE}"),
        ({"metric": "greedy/kl", "greedy": True}, f"one of: {POSSIBLE}, greedy/score, greedy/reward/count_e"),
        ({"pass_at_k": PassConfig(reward="luck")}, "evaluation.num_generations is 1; it needs at least 2"),
        ({"pass_at_k": PassConfig(), "num_generations": 2}, "evaluation.pass_at_k.reward is not set"),
    ],
)
def test_a_metric_that_nothing_measures_is_refused_before_the_training(config, options, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(config, evaluation=PolicyEvaluation(**options))


def test_a_metric_that_applies_to_no_held_out_prompt_is_an_error(config, tmp_path):
    nowhere = RewardSpec(path="tiny_runs.never_applies", name="nowhere", weight=0.0)
    settings = PolicyEvaluation(prompts=2, metric="reward/nowhere")
    config = dataclasses.replace(
        config, output_dir=str(tmp_path / "run"), rewards=[COUNT_E, nowhere], evaluation=settings
    )
    with pytest.raises(
        UserError, match=r"'reward/nowhere', but nothing was measured under that name.*: score, reward/c"
    ):
        run_ppo(config)


@pytest.mark.parametrize("better", ["loss", "score"])
def test_ties_and_what_is_not_a_number_are_no_improvement(better):
    settings = PolicyEvaluation(metric="score", patience=2) if better == "score" else SFTEvaluation(patience=2)
    best = Best(settings, "step")
    sign = 1 if better == "score" else -1
    found = []
    for step, value in enumerate([1.0, 1.0, 3.0, 2.0, math.nan]):
        best.add(step, {better: sign * value}, 0.1)
        found.append((best.step, best.waited, best.stop))
    assert found == [(0, 0, False), (0, 1, False), (2, 0, False), (2, 1, False), (2, 2, True)]
    again = Best(settings, "step")
    again.load_state_dict(json.loads(json.dumps(best.state_dict())))
    assert vars(again).keys() == vars(best).keys()
    assert (again.step, again.value, again.stop) == (2, sign * 3.0, True)


def test_a_metric_that_later_applies_to_no_response_does_not_end_the_run(tmp_path):
    best = Best(PolicyEvaluation(metric="reward/f", patience=3), "update")
    with pytest.raises(UserError, match=r"evaluation\.metric is 'reward/f', but nothing was measured"):
        best.add(0, {"reward": 1.0}, 0.1)
    best.add(0, {"reward": 1.0, "reward/f": 0.5}, 0.1)
    assert "reward/f nan (best 0.500 after update 0)" in best.add(2, {"reward": 2.0}, 0.1)
    assert (best.step, best.waited) == (0, 1)
    assert best.summary().endswith("0.5 (0.5 before training, nan at the end)")
    (tmp_path / "README.md").write_text("# A policy\n\n## Results\n\nNone.\n")
    add_held_out(tmp_path, best.first, best.last)
    best.add(4, {"reward": 1.0, "reward/f": 0.7}, 0.1)
    assert (best.step, best.waited) == (4, 0)


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_share_the_prompts_and_end_together(config, tmp_path):
    """Patience and the best policy are the same on both: else one of them would wait for ever."""
    settings = PolicyEvaluation(every=1, prompts=3, num_generations=4, metric="reward/count_e", patience=2)
    together = dataclasses.replace(config, num_updates=20, num_processes=2, evaluation=settings, rewards=[COUNT_E])
    (tmp_path / "ppo").mkdir()
    done = launch("-m", "rlhf", *command_line(together, tmp_path / "ppo"))
    assert done.returncode == 0, done.stderr
    means = measured(tmp_path / "ppo" / "run")
    best = max(means, key=lambda step: means[step]["reward/count_e"])
    assert list(means) == list(range(best + 3))
    record = json.loads((tmp_path / "ppo" / "run" / "policy-best" / "held_out.json").read_text())
    assert record["means"] == means[best]


def test_the_report_shows_the_held_out_curves_and_the_best(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    best = max((means["reward/count_e"], -step) for step, means in measured(run).items())
    assert f"5 updates · best held-out reward/count_e {best[0]:.3g} after update {-best[1]}" in page.replace("\n", " ")
    assert "Held-out means after update 0 (hollow) and update 5 (filled)." in page
    for title in ("Reward, held out", "KL, held out", "Length, held out", "Entropy, held out"):
        assert f"<h4>{title} " in page
    assert "<h4>held_out/" not in page  # what no panel asks for


def test_the_report_of_a_run_that_is_not_further_than_the_evaluation_before(run, tmp_path):
    first, *_ = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text(first)
    found = read_run(tmp_path)
    assert (found.stage, found.trained_rows) == ("ppo", [])
    assert write_report([tmp_path], tmp_path / "report.html")
