"""SFT and reward models by the fast paths, against the plain libraries: losses, metrics and gradients."""

import json

import pytest
import torch
from tiny_data import PAIRS, write_jsonl
from torch import nn

from rlhf.config import DataConfig, LoraConfig, ModelConfig, RewardModelConfig, SFTConfig, TrackingConfig
from rlhf.fast.token_loss import token_loss
from rlhf.models.head import Head
from rlhf.models.load import load_causal_lm
from rlhf.stages.by_length import divide
from rlhf.stages.fast_forward import fast_forward, is_causal
from rlhf.stages.resumable import Resumable
from rlhf.stages.reward_model import run_reward
from rlhf.stages.sft import run_sft

ROWS = [
    {"prompt": pair["prompt"], "completion": pair["completion"] + word, "rejected": word * 3}
    for pair, word in zip(PAIRS, ("a", "b c" * 9, "d e", "f" * 4, "g h i " * 3, "j", "k l" * 2, "m"), strict=True)
]


@pytest.mark.parametrize(
    "head_of", [Head, lambda linear: Head(linear, scale=0.5), lambda linear: Head(linear, 2.0, 1.5)]
)
@pytest.mark.parametrize("is_frozen", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_loss_without_logits_equals_autograd_through_them(monkeypatch, head_of, is_frozen, bias):
    torch.manual_seed(0)
    monkeypatch.setattr("rlhf.fast.token_loss.LOGIT_ROWS", 4)  # three blocks of logits,
    monkeypatch.setattr("rlhf.fast.token_loss.CACHED_LOGITS", 2 * 50)  # two parts of each
    linear = nn.Linear(6, 50, bias=bias).requires_grad_(not is_frozen)
    features, ids = torch.randn(11, 6, requires_grad=True), torch.randint(50, (11,))
    inputs = [features, *(p for p in linear.parameters() if p.requires_grad)]
    logits = head_of(linear)(features)
    ids[:3] = logits[:3].argmax(-1)
    expected = nn.functional.cross_entropy(logits, ids, reduction="sum")
    loss, hits = token_loss(features, ids, head_of(linear))
    torch.testing.assert_close(loss, expected)
    assert int(hits) == int((logits.argmax(-1) == ids).sum())
    ours, theirs = (torch.autograd.grad(0.3 * x, inputs) for x in (loss, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(token_loss(features, ids, head_of(linear))[0], expected)


def test_a_batch_is_divided_by_length():
    rows = {"input_ids": torch.tensor([[1, 2, 3, 4], [5, 0, 0, 0], [6, 7, 8, 0]])}
    rows["attention_mask"] = (rows["input_ids"] > 0).long()
    rows["labels"] = rows["input_ids"] * 10
    first, second = divide(rows, 2)
    assert first["input_ids"].tolist() == [[5, 0, 0], [6, 7, 8]]
    assert second["labels"].tolist() == [[10, 20, 30, 40]]


def test_both_sides_of_a_pair_stay_together():
    pairs = {"input_ids": torch.tensor([[1, 1, 1, 0], [2, 0, 0, 0], [11, 0, 0, 0], [12, 12, 0, 0]])}
    pairs["attention_mask"] = (pairs["input_ids"] > 0).long()
    first, second = divide(pairs, 2)
    assert first["input_ids"].tolist() == [[2, 0], [12, 12]]
    assert second["input_ids"].tolist() == [[1, 1, 1], [11, 0, 0]]


def train(monkeypatch, folder, tiny_models, architecture, stage, fast_paths, **options):
    """The gradients of each optimizer step, one vector each, and the metrics."""
    gradients, norm = [], Resumable._get_grad_norm

    def recorded(self, model, grad_norm=None):
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        return norm(self, model, grad_norm)

    monkeypatch.setattr(Resumable, "_get_grad_norm", recorded)
    monkeypatch.setattr("rlhf.stages.by_length.TOKENS_AT_ONCE", 100)
    rows = ROWS if stage == "sft" else [{**row, "chosen": row["completion"]} for row in ROWS]
    data = write_jsonl(folder / "rows.jsonl", rows)
    config, run = {"sft": (SFTConfig, run_sft), "reward": (RewardModelConfig, run_reward)}[stage]
    settings = {
        "output_dir": str(folder / f"run_{fast_paths}"),
        "model": ModelConfig(name_or_path=str(tiny_models[architecture])),
        "data": DataConfig(train=data, eval=None if stage == "sft" else data),
        "lora": LoraConfig(r=4, alpha=8),
        "num_train_epochs": 1,
        "batch_size": 5,  # a step of five, one of three
        "max_grad_norm": 1e9,
        "learning_rate": 1e-3,
        "tracking": TrackingConfig(wandb="disabled", tensorboard=False),
    }
    run(config(**settings | options, fast_paths=fast_paths))
    metrics = (folder / f"run_{fast_paths}" / "metrics.jsonl").read_text().splitlines()
    return gradients, [json.loads(line) for line in metrics]


@pytest.mark.parametrize(
    ("stage", "architecture", "options"),
    [
        ("sft", "gpt2", {}),
        ("sft", "llama", {"batch_size": 4, "micro_batch_size": 2}),
        ("sft", "gpt2", {"lora": None}),
        ("reward", "llama", {}),
        ("reward", "gpt2", {"lora": None}),
    ],
)
def test_the_stage_equals_the_plain_one(monkeypatch, tmp_path, tiny_models, stage, architecture, options):
    with monkeypatch.context() as patch:
        fast = train(patch, tmp_path, tiny_models, architecture, stage, True, **options)
    with monkeypatch.context() as patch:
        plain = train(patch, tmp_path, tiny_models, architecture, stage, False, **options)
    assert len(fast[0]) == len(plain[0]) == 2
    for ours, theirs in zip(fast[0], plain[0], strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 2e-6
    for ours, theirs in zip(fast[1], plain[1], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("stage", ["sft", "reward"])
def test_in_bfloat16_adapters_start_as_in_float32(monkeypatch, tmp_path, tiny_models, stage):
    """Without autocast, which the plain way needs for adapters in float32 on a base in bfloat16."""
    model = ModelConfig(name_or_path=str(tiny_models["llama"]), dtype="bfloat16")
    with monkeypatch.context() as patch:
        gradients, metrics = train(patch, tmp_path, tiny_models, "llama", stage, True, model=model)
    with monkeypatch.context() as patch:
        exact, exact_metrics = train(patch, tmp_path, tiny_models, "llama", stage, False)
    assert gradients[0].dtype == exact[0].dtype
    assert float((gradients[0] - exact[0]).norm() / exact[0].norm()) < 0.05
    assert metrics[0][f"{stage}/loss"] == pytest.approx(exact_metrics[0][f"{stage}/loss"], rel=0.02)


def test_training_never_makes_all_logits(monkeypatch, tmp_path, tiny_models):
    whole = []
    plain = nn.Linear.forward
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: whole.append(self.out_features) or plain(self, x))
    losses = []
    loss = token_loss
    monkeypatch.setattr("rlhf.stages.fast_forward.token_loss", lambda *given: losses.append(len(whole)) or loss(*given))
    train(monkeypatch, tmp_path, tiny_models, "gpt2", "sft", True)
    vocabulary = load_causal_lm(ModelConfig(name_or_path=str(tiny_models["gpt2"]))).config.vocab_size
    assert len(losses) > 2  # parts of two steps
    assert vocabulary not in whole[losses[0] : losses[-1]]


def test_what_is_not_causal_keeps_its_mask(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification

    size = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "vocab_size": 50,
    }
    model = BertForSequenceClassification(BertConfig(**size)).eval()
    plain = model.forward
    assert not is_causal(model)
    with fast_forward(model):
        assert model.forward == plain


def test_afterwards_the_forward_pass_is_the_models_own(tiny_models):
    model = load_causal_lm(ModelConfig(name_or_path=str(tiny_models["llama"])))
    plain = model.forward
    with fast_forward(model):
        assert model.forward != plain
    assert model.forward == plain
