"""SFT and reward models measured on held-out rows while they train; the best one kept."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig as PeftLora
from peft import get_peft_model
from processes import launch
from safetensors.torch import load_file
from tiny_data import TEXTS, write_jsonl
from transformers import AutoModelForCausalLM

from rlhf.config import CheckpointConfig, DataConfig, LoraConfig, ModelConfig, RewardModelConfig, SFTConfig
from rlhf.config.common import TrackingConfig
from rlhf.config.evaluation import RewardModelEvaluation, SFTEvaluation
from rlhf.errors import UserError
from rlhf.evaluation.completions import Row, completion_means
from rlhf.models.adapters import merged_copy
from rlhf.parallel.ranks import Ranks
from rlhf.rewards.learned import SETTINGS_FILE, RewardModel
from rlhf.runs.files import read_jsonl
from rlhf.runs.folder import as_plain
from rlhf.stages.reward_model import run_reward
from rlhf.stages.sft import run_sft
from rlhf.tracking.tracker import Tracker

RUN = {"sft": run_sft, "full": run_sft, "reward": run_reward}
STEPS = 8  # eight rows by twos, in two epochs


@pytest.fixture(scope="module")
def configs(tiny_models, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("data")
    pairs = [dict(zip(("prompt", "completion"), text.split("\n", 1), strict=True)) for text in TEXTS[:8]]
    preferences = [{"prompt": p["prompt"], "chosen": p["completion"], "rejected": p["completion"][::-1]} for p in pairs]
    rows, compared = write_jsonl(folder / "pairs.jsonl", pairs), write_jsonl(folder / "compared.jsonl", preferences)
    model = ModelConfig(name_or_path=str(tiny_models["gpt2"]))
    common = {
        "model": model, "num_train_epochs": 2.0, "batch_size": 2, "learning_rate": 3e-2,
        "checkpoint": CheckpointConfig(save_steps=3), "tracking": TrackingConfig(tensorboard=False),
    }  # fmt: skip
    sft = SFTConfig(
        **common,
        data=DataConfig(train=rows, eval=rows),
        lora=LoraConfig(r=2, alpha=4),
        evaluation=SFTEvaluation(every=3, rows=5, metric="token_accuracy"),
    )
    reward = RewardModelConfig(
        **common,
        data=DataConfig(train=compared, eval=compared),
        lora=LoraConfig(r=2, alpha=4),
        evaluation=RewardModelEvaluation(every=3, rows=5, metric="margin"),
    )
    return {"sft": sft, "full": replace(sft, lora=None, evaluation=SFTEvaluation(every=3)), "reward": reward}


@pytest.fixture(scope="module")
def runs(configs, tmp_path_factory) -> dict[str, Path]:
    """The runs that nobody interrupted."""
    folder = tmp_path_factory.mktemp("runs")
    return {name: RUN[name](replace(config, output_dir=str(folder / name))).parent for name, config in configs.items()}


def rows_of(folder: Path) -> list[dict]:
    rows = read_jsonl(folder / "metrics.jsonl")
    return [{name: x for name, x in row.items() if not name.startswith("time/")} for row in rows]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {f"{file.name}/{name}": x for file in folder.glob("*.safetensors") for name, x in load_file(file).items()}


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", RUN)
def test_measured_before_every_so_many_and_after_the_last(runs, name):
    rows = rows_of(runs[name])
    assert [row["step"] for row in rows] == list(range(STEPS + 1))
    measured = {row["step"]: row for row in rows if any(metric.startswith("held_out/") for metric in row)}
    assert list(measured) == [0, 3, 6, 8]
    metric, choose = {"sft": ("token_accuracy", max), "full": ("loss", min), "reward": ("margin", max)}[name]
    record = json.loads((runs[name] / "model-best" / "held_out.json").read_text())
    values = {step: row[f"held_out/{metric}"] for step, row in measured.items()}
    assert values[record["step"]] == choose(values.values())
    assert record["means"][metric] == values[record["step"]]


@pytest.mark.parametrize("name", ["full", "reward"])
def test_it_trains_like_a_run_without(configs, runs, tmp_path, name):
    plain = RUN[name](replace(configs[name], output_dir=str(tmp_path / name), evaluation=None)).parent
    trained = [{n: x for n, x in row.items() if not n.startswith("held_out/")} for row in rows_of(runs[name])[1:]]
    assert rows_of(plain) == trained
    assert same(weights(plain / "model"), weights(runs[name] / "model"))
    assert not (plain / "model-best").exists()


@pytest.mark.parametrize(("name", "at"), [("sft", 7), ("reward", 4)])
def test_a_crash_changes_nothing(configs, runs, tmp_path, monkeypatch, name, at):
    log = Tracker.log

    def crash(tracker, metrics, step):
        if step == at:
            raise RuntimeError("power failure")
        log(tracker, metrics, step)

    config = replace(configs[name], output_dir=str(tmp_path / name))
    with monkeypatch.context() as broken:
        broken.setattr(Tracker, "log", crash)
        with pytest.raises(RuntimeError, match="power failure"):
            RUN[name](config)
    again = RUN[name](config).parent
    assert rows_of(again) == rows_of(runs[name])
    for folder in ("model", "model-best"):
        assert same(weights(again / folder), weights(runs[name] / folder))


def test_the_loss_is_the_mean_over_the_tokens_that_are_trained_on(tiny_models):
    model = AutoModelForCausalLM.from_pretrained(tiny_models["gpt2"])
    rows = [Row([5, 9, 7, 3, 8], [0, 0, 1, 1, 1]), Row([4, 6, 2], [0, 1, 1]), Row([9, 8, 7, 6], [0, 1, 0, 1])]
    losses, right = [], 0
    for ids, mask in rows:  # one by one, without padding
        with torch.no_grad():
            probabilities = model(torch.tensor([ids])).logits[0].double().softmax(-1)
        for place in range(1, len(ids)):
            if mask[place]:
                losses.append(-probabilities[place - 1, ids[place]].log().item())
                right += int(probabilities[place - 1].argmax() == ids[place])
    model.train()
    means = completion_means(model, rows, 2, Ranks())
    assert means["loss"] == pytest.approx(sum(losses) / 7, rel=1e-5)
    assert means["token_accuracy"] == right / 7
    assert model.training


def test_a_merged_copy_is_a_model_of_its_own(tiny_models):
    """Also where a trainer has put a forward pass of its own into the model, which knows that model alone."""
    model = AutoModelForCausalLM.from_pretrained(tiny_models["gpt2"])
    wrapper = get_peft_model(
        model, PeftLora(r=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False)
    )
    plain, ids = model.forward, torch.arange(5, 13).unsqueeze(0)
    model.forward = lambda **inputs: plain(**inputs)
    with torch.no_grad():
        expected = wrapper(input_ids=ids).logits
        copied = merged_copy(wrapper)
        for parameter in wrapper.parameters():
            parameter.zero_()
        torch.testing.assert_close(copied(input_ids=ids).logits, expected)
        assert wrapper(input_ids=ids).logits.abs().max() == 0
    assert merged_copy(copied) is copied


def test_the_best_model_is_measured_again_as_it_was(configs, runs):
    best, config = runs["reward"] / "model-best", configs["reward"]
    record, reward = json.loads((best / "held_out.json").read_text()), RewardModel(str(best))
    rows = read_jsonl(Path(config.data.eval))[:5]
    sides = [reward([row["prompt"] for row in rows], [row[side] for row in rows]) for side in ("chosen", "rejected")]
    margins = [better - worse for better, worse in zip(*sides, strict=True)]
    assert sum(margin > 0 for margin in margins) / 5 == record["means"]["accuracy"]
    std = json.loads((best / SETTINGS_FILE).read_text())["std"]
    assert sum(margins) / 5 * std == pytest.approx(record["means"]["margin"], rel=1e-3)


def test_patience_ends_the_training_for_good(configs, tmp_path, capsys):
    settings = SFTEvaluation(every=1, metric="loss", patience=1, keep_best=False)
    config = replace(configs["full"], output_dir=str(tmp_path / "run"), learning_rate=1.0, evaluation=settings)
    model = run_sft(config)
    said = capsys.readouterr()
    assert "held-out loss has not improved on" in said.err
    assert "held-out loss was best after step 0" in said.out
    assert not (tmp_path / "run" / "model-best").exists()
    rows = rows_of(tmp_path / "run")
    assert len(rows) < STEPS
    [warning] = read_jsonl(tmp_path / "run" / "warnings.jsonl")
    assert (warning["name"], warning["step"]) == ("early_stopping", rows[-1]["step"])
    before = weights(model)
    assert same(weights(run_sft(config)), before)
    assert rows_of(tmp_path / "run") == rows


def test_a_step_without_a_learning_rate_does_not_try_the_patience(configs, tmp_path, monkeypatch):
    """The warm-up begins at 0: after its first step the model is what it was."""
    settings = SFTEvaluation(every=1, metric="loss", patience=1, keep_best=False)
    config = replace(configs["full"], output_dir=str(tmp_path / "run"), warmup_fraction=0.3, evaluation=settings)
    run_sft(config)
    rows = rows_of(tmp_path / "run")
    assert rows[0]["held_out/loss"] == rows[1]["held_out/loss"] > rows[2]["held_out/loss"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SFTEvaluation(metric="accuracy"), "metric is 'accuracy'; it must be one of: loss, token_"),
        (lambda: RewardModelEvaluation(metric="f1"), "metric is 'f1'; it must be one of: accuracy, loss, m"),
        (lambda: SFTEvaluation(every=0), "every is 0; it must be greater than 0"),
        (lambda: SFTEvaluation(patience=0), "patience is 0; it must be greater than 0"),
    ],
)
def test_settings_without_effect_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_there_has_to_be_something_to_measure_on(configs):
    data = replace(configs["sft"].data, eval=None)
    with pytest.raises(UserError, match=r"evaluation is set, but data\.eval is not; name a file"):
        replace(configs["sft"], data=data)


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_share_the_rows_and_end_together(configs, tmp_path):
    settings = SFTEvaluation(every=1, rows=5, patience=1)
    config = replace(configs["full"], learning_rate=1.0, evaluation=settings, num_processes=2)
    file = tmp_path / "sft.yaml"
    file.write_text(yaml.safe_dump(as_plain(config) | {"output_dir": str(tmp_path / "run")}))
    done = launch("-m", "rlhf", "sft", "--config", str(file))
    assert done.returncode == 0, done.stderr
    assert "held-out loss was best after step 0" in done.stdout
    record = json.loads((tmp_path / "run" / "model-best" / "held_out.json").read_text())
    alone = run_sft(replace(configs["full"], output_dir=str(tmp_path / "alone"), evaluation=settings))
    first = rows_of(alone.parent)[0]
    assert record["means"]["loss"] == pytest.approx(first["held_out/loss"], rel=1e-5)
