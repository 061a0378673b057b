"""The stages end to end on very small models, and their files read back."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from rewards.render_available import needs_render
from tiny_data import write_jsonl, write_pairs
from tiny_runs import pipeline_config

from rlhf.cli import main
from rlhf.config import ModelConfig, PipelineConfig
from rlhf.config.command_line import build
from rlhf.errors import UserError
from rlhf.models.load import load_causal_lm
from rlhf.models.tokenizer import load_tokenizer
from rlhf.report.load import read_run
from rlhf.stages.evaluate import policy_of


def jsonl(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def finished(request, tmp_path_factory) -> Path:
    """A finished pipeline run."""
    folder = tmp_path_factory.mktemp(request.param)
    config = pipeline_config(folder / "run", write_pairs(folder), request.param)
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(config))
    main(["pipeline", "--config", str(folder / "pipeline.yaml")])
    return folder / "run"


def test_sft_learned(finished):
    losses = [row["sft/loss"] for row in jsonl(finished / "sft" / "metrics.jsonl")]
    assert len(losses) == 12
    assert losses[-1] < 0.7 * losses[0]


def test_ppo_metrics(finished):
    rows = jsonl(finished / "ppo" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[0]["policy/ratio_first_minibatch"] == pytest.approx(1.0, abs=1e-6)
    assert rows[0]["objective/kl"] == 0.0
    assert rows[1]["objective/kl"] != 0.0
    for row in rows:
        total = row["reward/react_heuristic"] + 0.5 * row["reward/react_parses"]
        assert row["objective/score"] == pytest.approx(total, abs=1e-5)
        assert 0 <= row["response/eos_rate"] <= 1
        assert row["objective/entropy"] > 0
        assert row["time/tokens_per_second"] > 0
    samples = jsonl(finished / "ppo" / "samples.jsonl")
    assert len(samples) == 12
    assert samples[0].keys() >= {"step", "prompt", "response", "score", "kl", "length", "reward/react_heuristic"}


def test_summary(finished):
    summary = json.loads((finished / "summary.json").read_text())
    for stage in ("sft", "ppo"):
        means = summary[stage]
        assert means.keys() >= {"reward", "react_heuristic", "parse_rate", "jsx_rate", "length", "kl", "entropy"}
        assert means["parse_rate"] == means["react_parses"]
        assert means["reward"] == pytest.approx(means["react_heuristic"] + 0.5 * means["react_parses"])
        responses = jsonl(finished / f"evaluation_{stage}" / "responses.jsonl")
        assert len(responses) == 8
        assert means["length"] == sum(row["length"] for row in responses) / 8
    assert summary["sft"]["kl"] == 0.0
    assert summary["ppo"]["kl"] != 0.0
    assert (finished / "reward_kl.png").stat().st_size > 10_000
    assert "| reward |" in (finished / "summary.md").read_text()


def test_reference_of_ppo_is_the_sft_model(finished):
    policy, _ = policy_of(ModelConfig(name_or_path=str(finished / "ppo" / "policy")))
    sft = load_causal_lm(ModelConfig(name_or_path=str(finished / "sft" / "model")))
    ids = torch.arange(2, 12).unsqueeze(0)
    with policy.reference():
        ours = policy.wrapper.pretrained_model(input_ids=ids).logits
    assert torch.equal(ours, sft(input_ids=ids).logits)


def test_running_again_only_shows_the_summary(finished, capsys):
    files = {path: path.stat().st_mtime_ns for path in (finished / "ppo").rglob("*")}
    main(["pipeline", "--config", str(finished.parent / "pipeline.yaml")])
    assert files == {path: path.stat().st_mtime_ns for path in (finished / "ppo").rglob("*")}
    output = capsys.readouterr().out
    assert "parse_rate" in output
    assert "PPO policy" in output


def rlhf(command: str) -> None:
    """Run a command line without spaces inside its arguments."""
    main(command.split())


def test_generate_from_every_kind_of_checkpoint(finished, tmp_path, capsys):
    greedy = '--prompt ["Button?"] --sampling.temperature 0 --sampling.max_new_tokens 16'
    for name in ("sft/model", "ppo/policy"):
        merged = tmp_path / "merged" / name
        rlhf(f"generate --model.name_or_path {finished / name} {greedy} --merge_to {merged}")
        first = capsys.readouterr().out
        assert "### Button?" in first
        rlhf(f"generate --model.name_or_path {merged} {greedy}")
        assert capsys.readouterr().out.split("\n\n")[0] == first.split("\n\n")[0]


def test_generate_into_a_file(finished, tmp_path):
    rlhf(
        f"generate --model.name_or_path {finished / 'ppo' / 'policy'} --data.train {finished.parent / 'pairs.jsonl'} "
        f"--sampling.max_new_tokens 8 --output {tmp_path / 'out.jsonl'} --num_generations 2"
    )
    assert len(jsonl(tmp_path / "out.jsonl")) == 16


def test_evaluate_stage_repeats_the_pipelines_numbers(finished, tmp_path):
    rlhf(
        f"evaluate --model.name_or_path {finished / 'ppo' / 'policy'} --output_dir {tmp_path / 'evaluation'} "
        f"--data.train {finished.parent / 'pairs.jsonl'} --sampling.max_new_tokens 24 "
        '--prompts 4 --num_generations 2 --rewards [{"path":"react_heuristic"}]'
    )
    ours = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    theirs = json.loads((finished / "summary.json").read_text())["ppo"]
    assert ours["react_heuristic"] == theirs["react_heuristic"]
    assert ours["kl"] == theirs["kl"]


def test_sft_with_lora_on_a_model_from_disk(tiny_models, pairs, tmp_path):
    rlhf(
        f"sft --output_dir {tmp_path / 'run'} --model.name_or_path {tiny_models['llama']} --data.train {pairs} "
        "--lora.r 4 --num_train_epochs 3 --batch_size 4 --micro_batch_size 2 --learning_rate 0.01"
    )
    merged = load_causal_lm(ModelConfig(name_or_path=str(tmp_path / "run" / "model")))
    base = load_causal_lm(ModelConfig(name_or_path=str(tiny_models["llama"])))
    assert merged.state_dict().keys() == base.state_dict().keys()
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(merged.state_dict()[name], base.state_dict()[name])
    assert torch.equal(merged.state_dict()["model.norm.weight"], base.state_dict()["model.norm.weight"])
    assert load_tokenizer(str(tmp_path / "run" / "model")).eos_token == "<|eos|>"


def test_sft_loss_is_on_the_completion_only(tiny_models, tmp_path):
    """The first loss equals the mean negative log-likelihood of completion tokens and EOS, computed by hand."""
    rows = [{"prompt": "Show a button", "completion": "return <b/>"}]
    file = write_jsonl(tmp_path / "row.jsonl", rows)
    rlhf(
        f"sft --output_dir {tmp_path / 'run'} --model.name_or_path {tiny_models['gpt2']} --data.train {file} "
        "--num_train_epochs 1 --batch_size 1"
    )
    tokenizer = load_tokenizer(str(tiny_models["gpt2"]))
    prompt = tokenizer("Show a button")["input_ids"]
    ids = torch.tensor([prompt + tokenizer("return <b/>")["input_ids"] + [tokenizer.eos_token_id]])
    model = load_causal_lm(ModelConfig(name_or_path=str(tiny_models["gpt2"])))
    logprobs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    by_hand = -logprobs.gather(-1, ids[0, 1:, None])[len(prompt) - 1 :].mean()
    [row] = jsonl(tmp_path / "run" / "metrics.jsonl")
    assert row["sft/loss"] == pytest.approx(by_hand.item(), rel=1e-4)


def test_sft_needs_completions(tiny_models, tmp_path, capsys):
    file = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "a", "completion": "b"}, {"prompt": "c"}])
    with pytest.raises(SystemExit):
        rlhf(f"sft --model.name_or_path {tiny_models['gpt2']} --data.train {file} --output_dir {tmp_path / 'run'}")
    assert "rows.jsonl row 2: no completion" in capsys.readouterr().err


def test_without_sft_it_starts_from_the_model_of_ppo(finished, tmp_path, capsys):
    model = finished / "sft" / "model"
    config = pipeline_config(tmp_path / "run", str(finished.parent / "pairs.jsonl"), "gpt2") | {"sft": None}
    config["ppo"] |= {"model": {"name_or_path": str(model)}, "num_updates": 1}
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(config))
    rlhf(f"pipeline --config {tmp_path / 'pipeline.yaml'}")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["base"] == json.loads((finished / "summary.json").read_text())["sft"]
    assert list(read_run(tmp_path / "run").evaluations) == ["base", "PPO"]
    assert "| held-out mean | base | PPO | change |" in (tmp_path / "run" / "summary.md").read_text()
    assert not (tmp_path / "run" / "sft").exists()


def test_without_sft_there_has_to_be_a_model(tmp_path):
    config = pipeline_config(tmp_path / "run", write_pairs(tmp_path), "gpt2") | {"sft": None}
    with pytest.raises(UserError, match=r"sft is null and ppo\.model\.name_or_path is not set"):
        build(PipelineConfig, config)


def test_the_model_of_ppo_is_not_ignored_in_silence(tmp_path):
    config = pipeline_config(tmp_path / "run", write_pairs(tmp_path), "gpt2")
    config["ppo"] |= {"model": {"name_or_path": "somewhere"}}
    with pytest.raises(UserError, match=r"ppo\.model\.name_or_path is 'somewhere', but PPO starts from what SFT makes"):
        build(PipelineConfig, config)


@needs_render
def test_the_summary_says_what_responses_render(finished):
    said = (finished / "summary.md").read_text()
    assert len(re.findall("^It (renders: |does not render: )", said, re.MULTILINE)) == 6
