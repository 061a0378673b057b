"""A batch that several updates learn from: nothing is sampled again, everything else is computed anew and corrected."""

import dataclasses
import json
import math
import os
import signal

import pytest
import torch
from processes import launch
from safetensors.torch import load_file
from tiny_runs import COUNT_E, count_e, make_config, make_trainer, parameters

from rlhf.config import CheckpointConfig, EnvironmentSpec, ValueWarmup
from rlhf.config.generation import GenerationConfig
from rlhf.environments.returns import reward_fn
from rlhf.errors import Interrupted, UserError
from rlhf.ppo.state import restored_batch, stored_batch
from rlhf.ppo.trainer import Callback
from rlhf.rewards import RewardSpec, RewardSum, Span, SpanReward
from rlhf.runs.files import read_jsonl
from rlhf.stages.ppo import build_trainer, run_ppo

REUSED = {"reuse_batch": 3, "importance_correction": "token", "num_updates": 6}


class Phases(Callback):
    """What is called, and how often the policy has been updated by then."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def after_sampling(self, trainer, responses):
        self.seen.append(("sampled", trainer.updates_done))

    def after_update(self, trainer, update):
        self.seen.append(("updated", trainer.updates_done))


@pytest.fixture
def trainer(tiny_models, pairs):
    return make_trainer(tiny_models, pairs, **REUSED)


def slow_mean_weight(rollout, cap: float) -> tuple[float, float]:
    """Mean over tokens of min(pi_now / pi_sampler, cap), and the share at the cap, token after token."""
    weights = [
        math.exp(float(rollout.old_logprobs[row, t]) - float(rollout.sampler_logprobs[row, t]))
        for row in range(len(rollout))
        for t in range(rollout.response_mask.shape[1])
        if rollout.response_mask[row, t]
    ]
    return sum(min(w, cap) for w in weights) / len(weights), sum(w >= cap for w in weights) / len(weights)


def test_a_batch_is_sampled_and_scored_once_and_evaluated_by_every_update(trainer):
    scored, reward = [], trainer.reward_fn
    trainer.reward_fn = lambda *given, **more: scored.append(trainer.updates_done) or reward(*given, **more)
    phases = Phases()
    trainer.callbacks = [phases]
    updates = [trainer.update() for _ in range(6)]
    assert scored == [0, 3]
    assert [when for what, when in phases.seen if what == "sampled"] == [0, 3]
    assert [update.metrics["sampling/staleness"] for update in updates] == [0, 1, 2, 0, 1, 2]
    for first, second in zip(updates, updates[1:], strict=False):
        again = second.metrics["sampling/staleness"] > 0
        for name in ("sequence_ids", "sampler_logprobs", "scores"):
            assert torch.equal(getattr(first.rollout, name), getattr(second.rollout, name)) == again, name
        for name in ("old_logprobs", "old_values", "advantages", "kl"):
            assert not torch.equal(getattr(first.rollout, name), getattr(second.rollout, name)), name


def test_what_is_learned_from_is_what_the_policy_of_now_computes(trainer):
    trainer.update()
    before = parameters(trainer)
    rollout = trainer.update().rollout
    after = parameters(trainer)
    with torch.no_grad():  # back to where the second update began
        for (_, p), old in zip(trainer.policy.trainable, before.split([p.numel() for _, p in trainer.policy.trainable]), strict=True):
            p.copy_(old.view_as(p))
    now = trainer.forward(rollout, with_values=True, with_entropy=False)
    mask = rollout.response_mask
    torch.testing.assert_close(rollout.old_logprobs[mask], now.logprobs[mask])
    torch.testing.assert_close(rollout.old_values[mask], now.values[mask])
    assert not torch.equal(before, after)


def test_the_loss_is_weighted_by_policy_over_sampler(tiny_models, pairs):
    """Against a slow mean of min(pi_now / pi_sampler, cap); one minibatch, so that the metric is of one step."""
    options = REUSED | {"mini_batch_size": 8, "num_ppo_epochs": 1, "importance_cap": 1.05, "learning_rate": 3e-2}
    trainer = make_trainer(tiny_models, pairs, **options)
    means = []
    for _ in range(3):
        rollout, _, metrics = trainer.update()
        mean, truncated = slow_mean_weight(rollout, cap=1.05)
        assert metrics["sampling/weight_mean"] == pytest.approx(mean, rel=1e-5)
        assert metrics["sampling/truncated"] == pytest.approx(truncated, abs=1e-6)
        assert metrics["policy/ratio_first_minibatch"] == pytest.approx(1.0, abs=1e-5)  # to the policy of now
        means.append(mean)
    assert means[0] == pytest.approx(1.0, abs=1e-4)
    assert all(abs(mean - 1) > 1e-3 for mean in means[1:])
    assert truncated > 0
