"""The shipped configs, run for real on small models of the architectures they name."""

import json
from pathlib import Path
from typing import get_args

import pytest
import torch

from rlhf.cli import main
from rlhf.config import DataConfig, KLEstimator, ModelConfig, PPOConfig, SamplingConfig, ScratchModel, SFTConfig
from rlhf.errors import UserError
from rlhf.maths.kl import ESTIMATORS
from rlhf.models.load import build_from_scratch


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def small_model(request, tmp_path_factory) -> tuple[str, Path]:
    """A model with the module names of the real one and a context that holds the shipped prompts."""
    torch.manual_seed(0)
    scratch = ScratchModel(
        architecture=request.param, hidden_size=32, layers=2, heads=2, context_length=1024, vocab_size=400
    )
    lines = Path("data/react/five.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["completion"] for line in lines]
    model, tokenizer = build_from_scratch(scratch, texts)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return request.param, folder


def test_five_prompts_four_samples_three_rounds(small_model, tmp_path):
    """configs/ppo/react_llama.yaml and react_gpt2.yaml: the experiment that started the project."""
    name, folder = small_model
    command = (
        f"ppo --config configs/ppo/react_{name}.yaml --model.name_or_path {folder} --output_dir {tmp_path / 'run'}"
    )
    main([*command.split(), "--sampling.max_new_tokens", "24"])
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    for row in rows:
        assert row["policy/learning_rate"] == 1e-5
        assert row["objective/kl_coef"] == 0.0
        assert row["objective/score"] == pytest.approx(row["reward/react_heuristic"], abs=1e-5)
        assert "reward/react_structure" in row
        assert row["objective/logprob"] < 0
        assert "critic/loss" not in row


def test_sft_config_of_each_architecture(small_model, tmp_path):
    name, folder = small_model
    command = (
        f"sft --config configs/sft/react_{name}.yaml --model.name_or_path {folder} --output_dir {tmp_path / 'run'}"
    )
    smaller = "--data.train data/react/five.jsonl --data.max_completion_tokens 900 --num_train_epochs 1 --batch_size 4"
    main([*command.split(), *smaller.split(), "--micro_batch_size", "2"])
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    [first, *_] = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(first)["sft/loss"] > 0


def test_names_agree_between_config_and_maths():
    assert get_args(KLEstimator) == (*ESTIMATORS, "exact")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ScratchModel(hidden_size=100, heads=3), "hidden_size 100 is not divisible by heads 3"),
        (lambda: ScratchModel(vocab_size=100), "vocab_size is 100; a byte-level vocabulary needs at least 258"),
        (lambda: ModelConfig(name_or_path="gpt2", scratch=ScratchModel()), "both name_or_path 'gpt2' and scratch"),
        (lambda: SamplingConfig(top_p=0.0), r"top_p is 0.0; it must be in \(0, 1\]"),
        (lambda: SFTConfig(model=ModelConfig(), data=DataConfig(train="x")), "model is empty"),
        (lambda: DataConfig(train="x", max_prompt_tokens=0), "max_prompt_tokens is 0; it must be greater than 0"),
    ],
)
def test_contradictions_are_named(build, message):
    with pytest.raises(UserError, match=message):
        build()


def test_configs_are_frozen():
    with pytest.raises(AttributeError):
        PPOConfig(data=DataConfig(train="x"), rewards=[object()]).seed = 3  # type: ignore[list-item,misc]
