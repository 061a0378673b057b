"""One update against the arithmetic of TRL 1.12's PPOTrainer, on the same responses and scores.

TRL's `train()` runs as it is, for exactly one update. Given to it are what it would sample, what the reward model would
say, and the order of the minibatches. Its value model shares the policy's trunk, which is our critic="shared".

The first test holds all numbers equal. The others pin down where the two differ on purpose: the divisor of whitening,
the position after EOS, and minibatches under gradient accumulation.
"""

import copy
import math
import os
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import trl.experimental.ppo.ppo_trainer as trl_ppo
from accelerate import Accelerator
from trl.experimental.ppo import PPOConfig as TRLConfig

from rlhf.classic.batch import read_batch
from rlhf.classic.model import AutoModelForCausalLMWithValueHead
from rlhf.classic.update import StepTrainer
from rlhf.config import DataConfig, PPOConfig, SamplingConfig
from rlhf.config.rewards import RewardSpec
from rlhf.maths.advantages import gae
from rlhf.maths.losses import clipped_value_loss
from rlhf.maths.tensors import whiten
from rlhf.policy.policy import Policy

N_ROWS, N_TOKENS = 8, 7
TEMPERATURE, LEARNING_RATE, KL_COEF, VF_COEF, CLIP, GAMMA, LAMBDA = 0.7, 3e-4, 0.1, 0.3, 0.05, 0.95, 0.9
SCORES = [0.3, -1.2, 2.0, 0.0, 0.7, -0.4, 1.1, 0.9]


@dataclass
class Given:
    """A model with its value head, a reference, and the responses that both trainers learn from."""

    model: nn.Module
    reference: nn.Module
    head: nn.Linear
    tokenizer: object
    queries: list[list[int]]
    responses: list[list[int]]


class SharedCritic(nn.Module):
    """What TRL takes for a value model: the policy's own trunk under a linear head."""

    base_model_prefix = "trunk"

    def __init__(self, trunk: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.trunk, self.score = trunk, head


@pytest.fixture
def given(tiny_models) -> Given:
    """Random responses of seven tokens after queries of different lengths; the policy is off its reference."""
    folder = tiny_models["gpt2"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    reference = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(5)
    model = copy.deepcopy(reference)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    head = nn.Linear(model.config.hidden_size, 1)
    queries = [torch.randint(20, 300, (3 + row % 3,)).tolist() for row in range(N_ROWS)]
    responses = [torch.randint(20, 300, (N_TOKENS,)).tolist() for _ in range(N_ROWS)]
    return Given(model, reference, head, tokenizer, queries, responses)


def orders(epochs: int) -> list[torch.Tensor]:
    """The shuffles of our trainer, which TRL is given too."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randperm(N_ROWS, generator=generator) for _ in range(epochs)]


def patch_rollout(given: Given, monkeypatch, epochs: int) -> nn.Module:
    """Have TRL sample, score and shuffle what we give it; returns the reward model that it is to ask."""
    pad = given.tokenizer.pad_token_id
    queries = padded(given, "left")["input_ids"]
    responses = given.tokenizer.pad({"input_ids": given.responses}, padding_side="right", return_tensors="pt")
    rows = torch.cat([queries, responses["input_ids"]], 1)

    def sampled(policy, *_):
        logits = trl_ppo.forward(policy, rows, pad).logits[:, queries.shape[1] - 1 : -1]
        return rows, logits / (TEMPERATURE + 1e-7)

    reward_model, real_get_reward = nn.Module(), trl_ppo.get_reward

    def scored(model, *arguments):
        return (None, torch.tensor(SCORES), None) if model is reward_model else real_get_reward(model, *arguments)

    shuffles = iter(orders(epochs))
    monkeypatch.setattr(trl_ppo, "batch_generation", sampled)
    monkeypatch.setattr(trl_ppo, "get_reward", scored)
    monkeypatch.setattr(np.random, "permutation", lambda n: next(shuffles).numpy())
    return reward_model


def padded(given: Given, side: str):
    return given.tokenizer.pad({"input_ids": given.queries}, padding_side=side, return_tensors="pt")


def trl_update(
    given: Given, tmp_path, monkeypatch, epochs=2, minibatches=2, accumulation=1, batches=2
) -> SimpleNamespace:
    """One update of TRL's, of the first of some batches: its metrics, and its policy and value head afterwards."""
    model, head = copy.deepcopy(given.model), copy.deepcopy(given.head)
    reward_model = patch_rollout(given, monkeypatch, epochs)
    monkeypatch.setattr(trl_ppo, "masked_var", biased_variance)
    config = TRLConfig(
        output_dir=str(tmp_path), total_episodes=N_ROWS, per_device_train_batch_size=N_ROWS // accumulation,
        gradient_accumulation_steps=accumulation, num_mini_batches=minibatches, num_ppo_epochs=epochs,
        learning_rate=LEARNING_RATE, optim="adamw_torch", kl_coef=KL_COEF, vf_coef=VF_COEF, cliprange=CLIP,
        cliprange_value=CLIP, gamma=GAMMA, lam=LAMBDA, temperature=TEMPERATURE, response_length=N_TOKENS,
        stop_token="eos", num_sample_generations=0, gradient_checkpointing=False, bf16=False, report_to=[],
        save_strategy="no", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    trainer = trl_ppo.PPOTrainer(
        config, given.tokenizer, model, copy.deepcopy(given.reference), reward_model,
        Dataset.from_dict({"input_ids": batches * padded(given, "left")["input_ids"].tolist()}),
        SharedCritic(model.transformer, head),
    )  # fmt: skip
    logged: dict[str, float] = {}
    monkeypatch.setattr(trainer, "log", logged.update)
    trainer.train()
    return SimpleNamespace(metrics=logged, model=model, head=head)


def biased_variance(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Our divisor n for TRL's n - 1."""
    mean = (x * mask).sum() / mask.sum()
    return ((x - mean) ** 2 * mask).sum() / mask.sum()


def our_update(given: Given, epochs=2, minibatches=2) -> SimpleNamespace:
    """The same update of ours: its rollout and metrics, and our policy and value head afterwards."""
    policy = our_policy(given)
    config = PPOConfig(
        data=DataConfig(train="given"), rewards=[RewardSpec(path="length")], batch_size=N_ROWS,
        mini_batch_size=N_ROWS // minibatches, micro_batch_size=N_ROWS, num_ppo_epochs=epochs,
        learning_rate=LEARNING_RATE,
        critic_learning_rate=LEARNING_RATE, max_grad_norm=math.inf, clip_range=CLIP, value_clip_range=CLIP,
        vf_coef=VF_COEF, gamma=GAMMA, gae_lambda=LAMBDA, critic="shared", kl_coef=KL_COEF,
        sampling=SamplingConfig(temperature=TEMPERATURE),
    )  # fmt: skip
    shuffler = torch.Generator().manual_seed(0)
    trainer = StepTrainer(config, policy, given.tokenizer, None, None, shuffler, Accelerator(cpu=True))
    trainer.given = read_batch(given.queries, given.responses, SCORES, None, given.tokenizer)
    update = trainer.update()
    wrapper = policy.wrapper
    return SimpleNamespace(**update._asdict(), model=wrapper.pretrained_model, head=wrapper.v_head.summary)


def our_policy(given: Given) -> Policy:
    wrapper = AutoModelForCausalLMWithValueHead.from_pretrained(copy.deepcopy(given.model))
    wrapper.v_head.summary = copy.deepcopy(given.head)
    return Policy(wrapper, "shared", copy.deepcopy(given.reference))


def assert_same_parameters(ours: SimpleNamespace, theirs: SimpleNamespace, before: Given, atol=1e-6) -> None:
    """Equal to rounding, after each of them moved by about a thousandth.

    A bias on the keys shifts all attention scores of a query alike: its gradient is 0 but for rounding, and Adam makes
    a full step of that. It is left out.
    """
    width = before.model.config.hidden_size
    moved = dict(before.model.named_parameters())
    for (name, p), q in zip(ours.model.named_parameters(), theirs.model.parameters(), strict=True):
        if name.endswith("c_attn.bias"):
            p, q = (torch.cat([x[:width], x[2 * width :]]) for x in (p, q))
        else:
            assert (p - moved[name]).abs().max() > 5e-4
        torch.testing.assert_close(p, q, rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")
    for p, q in zip(ours.head.parameters(), theirs.head.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=atol)


def test_one_update_equals_trls(given, tmp_path, monkeypatch):
    theirs = trl_update(given, tmp_path, monkeypatch)
    ours = our_update(given)
    same = {
        "objective/kl": "objective/kl",
        "objective/scores": "objective/score",
        "objective/rlhf_reward": "objective/rlhf_reward",
        "loss/policy_avg": "policy/loss",
        "loss/value_avg": "critic/loss",
        "policy/approxkl_avg": "policy/approx_kl",
        "policy/clipfrac_avg": "policy/clip_fraction",
        "val/clipfrac_avg": "critic/clip_fraction",
        "val/ratio": "policy/ratio_mean",
        "lr": "policy/learning_rate",
    }
    for name, own_name in same.items():
        assert ours.metrics[own_name] == pytest.approx(theirs.metrics[name], rel=1e-5, abs=1e-6), name
    assert 0.1 < ours.metrics["policy/clip_fraction"] < 0.9  # both branches of the clip were taken
    assert 0.1 < ours.metrics["critic/clip_fraction"] < 0.9
    assert_same_parameters(ours, theirs, given)


def test_entropy_has_another_meaning(given, tmp_path, monkeypatch):
    """TRL's objective/entropy is the mean of -log p over responses, summed; ours the entropy of the distribution."""
    theirs = trl_update(given, tmp_path, monkeypatch)
    ours = our_update(given).rollout
    assert -ours.old_logprobs.sum(-1).mean().item() == pytest.approx(theirs.metrics["objective/entropy"], rel=1e-5)


def test_whitening_divides_by_n_where_trl_divides_by_n_minus_1():
    x, mask = torch.randn(4, 6, generator=torch.manual_seed(1)), torch.arange(24).view(4, 6) % 5 > 0
    n = int(mask.sum())
    theirs = trl_ppo.masked_whiten(x, mask) * mask
    torch.testing.assert_close(whiten(x, mask), theirs * math.sqrt(n / (n - 1)))


def test_after_eos_trl_has_one_more_position(given, tmp_path, monkeypatch):
    """There TRL pays the score and trains the critic; ours ends with EOS, as `response_mask` says.

    The KL is the same. TRL's value loss is ours over a mask that is one position longer in rows that end with EOS.
    """
    lengths = [7, 3, 5, 7, 2, 6, 4, 7]
    eos = given.tokenizer.eos_token_id
    ragged = [
        ids[:n] if n == N_TOKENS else [*ids[: n - 1], eos] for ids, n in zip(given.responses, lengths, strict=True)
    ]
    given = replace(given, responses=ragged)
    theirs = trl_update(given, tmp_path, monkeypatch, epochs=1, minibatches=1).metrics
    ours = our_update(given, epochs=1, minibatches=1)
    assert ours.metrics["objective/kl"] == pytest.approx(theirs["objective/kl"], rel=1e-5)
    assert abs(ours.metrics["critic/loss"] - theirs["loss/value_avg"]) > 0.01

    last = torch.tensor(lengths).clamp(max=N_TOKENS - 1)  # where TRL pays
    longer = torch.arange(N_TOKENS) <= last.unsqueeze(-1)  # [B, T]
    rollout = ours.rollout
    sequence_ids = torch.nn.functional.pad(rollout.sequence_ids, (0, 1))
    with torch.no_grad():
        values = our_policy(given)(sequence_ids, rollout.prompt_lengths, longer, TEMPERATURE).values
    rewards = (-KL_COEF * rollout.kl).scatter_add(1, last.unsqueeze(-1), torch.tensor(SCORES).unsqueeze(-1))
    _, returns = gae(rewards, values, longer, GAMMA, LAMBDA)
    loss, _ = clipped_value_loss(values, values, returns, longer, CLIP)
    assert loss.item() == pytest.approx(theirs["loss/value_avg"], rel=1e-5)


@pytest.mark.parametrize(("batches", "our_minibatches"), [(2, 1), (1, 2)])
def test_minibatches_of_trl_under_gradient_accumulation(given, tmp_path, monkeypatch, batches, our_minibatches):
    """With accumulation over 2, TRL's 2 minibatches make one optimizer step, but on the last batch of the data two.

    Its averages are halved: they have a place for every accumulated micro-batch, and the others stay 0.
    """
    theirs = trl_update(given, tmp_path, monkeypatch, accumulation=2, batches=batches)
    ours = our_update(given, minibatches=our_minibatches)
    assert_same_parameters(ours, theirs, given, atol=5e-5)  # AdamW's epsilon sees halved gradients
    assert ours.metrics["policy/ratio_mean"] == pytest.approx(2 * theirs.metrics["val/ratio"], rel=1e-4)
