"""One PPO update, looked at from all sides."""

import dataclasses
import math

import pytest
import torch
from tiny_runs import make_config, make_trainer, parameters

from rlhf.config import SamplingConfig, ValueWarmup
from rlhf.maths.kl import AdaptiveKLController
from rlhf.rewards import RewardSpec, RewardSum, SpanReward
from rlhf.rewards import Span as RewardSpan
from rlhf.stages.ppo import build_trainer


def half_and_span(prompts, completions, **columns):
    return [SpanReward(0.5, (RewardSpan(0, 1, -0.25),)) if text else 0.5 for text in completions]


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("critic", ["shared", "detached", "adapter"])
def test_first_update(tiny_models, pairs, architecture, critic):
    trainer = make_trainer(tiny_models, pairs, architecture, critic=critic)
    before = parameters(trainer)
    rollout, scores, metrics = trainer.update()
    assert metrics["policy/ratio_first_minibatch"] == pytest.approx(1.0, abs=1e-6)
    assert metrics["objective/kl"] == 0.0
    assert metrics["objective/score"] == pytest.approx(sum(scores.total) / 8, abs=1e-6)
    assert metrics["reward/count_e"] == pytest.approx(sum(scores.components["count_e"]) / 8)
    assert metrics["objective/rlhf_reward"] == pytest.approx(metrics["objective/score"], abs=1e-6)  # no KL yet
    assert metrics["response/length"] == pytest.approx(rollout.lengths.float().mean().item())
    assert rollout.advantages[rollout.response_mask].mean().item() == pytest.approx(0, abs=1e-5)
    assert not torch.equal(parameters(trainer), before)
    _, _, second = trainer.update()
    assert second["objective/kl"] != 0.0
    assert second["policy/ratio_first_minibatch"] == pytest.approx(1.0, abs=1e-6)


def test_samples_of_one_prompt_are_adjacent(tiny_models, pairs):
    rollout, _, _ = make_trainer(tiny_models, pairs).update()
    prompts = [example.prompt for example in rollout.examples]
    assert prompts[::2] == prompts[1::2]
    assert len(set(prompts)) == 4


def test_score_and_kl_penalty_add_up(tiny_models, pairs):
    trainer = make_trainer(tiny_models, pairs, kl_coef=0.3)
    trainer.update()
    rollout, _, metrics = trainer.update()
    kl = (rollout.old_logprobs - rollout.ref_logprobs).sum(-1)
    torch.testing.assert_close(rollout.rewards.sum(-1), rollout.scores - 0.3 * kl)
    assert metrics["objective/kl"] == pytest.approx(kl.mean().item(), rel=1e-5)


def test_clip_and_missing_eos_penalty(tiny_models, pairs):
    trainer = make_trainer(tiny_models, pairs, score_clip=0.01, missing_eos_penalty=2.0)
    rollout, scores, _ = trainer.update()
    assert max(scores.total) > 0.01
    clipped = torch.tensor(scores.total).clamp(-0.01, 0.01)
    torch.testing.assert_close(rollout.scores, clipped - 2.0 * (~rollout.has_eos))
    assert not rollout.has_eos.all()


def test_spans_reach_the_rewards(tiny_models, pairs):
    trainer = make_trainer(tiny_models, pairs, rewards=[RewardSpec(path="test_trainer.half_and_span")])
    rollout, _, _ = trainer.update()
    has_text = torch.tensor([bool(text) for text in rollout.texts])
    torch.testing.assert_close(rollout.rewards.sum(-1), 0.5 - 0.25 * has_text.float())


def test_learning_rate_zero_changes_nothing(tiny_models, pairs):
    trainer = make_trainer(tiny_models, pairs)
    trainer.policy.start_values_at = lambda value: None
    for group in trainer.epochs.optimizer.param_groups:
        group["peak_lr"] = 0.0
    before = parameters(trainer)
    _, _, metrics = trainer.update()
    assert torch.equal(parameters(trainer), before)
    assert metrics["policy/ratio_mean"] == 1.0


def ragged_rollout(tiny_models, pairs):
    """Responses of 1 to 10 tokens, so that a micro-batch's share of the tokens is not its share of the rows."""
    rollout, _, _ = make_trainer(tiny_models, pairs).update()
    n_tokens = torch.tensor([1, 10, 2, 9, 3, 8, 4, 7]).minimum(rollout.lengths)
    ragged = torch.arange(rollout.response_mask.shape[1]) < n_tokens.unsqueeze(-1)
    return dataclasses.replace(rollout, response_mask=ragged)


@pytest.mark.parametrize("loss_aggregation", ["token_mean", "sequence_mean"])
def test_gradient_does_not_depend_on_micro_batches(tiny_models, pairs, loss_aggregation):
    rollout, gradients, losses = ragged_rollout(tiny_models, pairs), [], []
    for micro_batch_size in (8, 3, 1):
        trainer = make_trainer(
            tiny_models, pairs, mini_batch_size=8, micro_batch_size=micro_batch_size, loss_aggregation=loss_aggregation
        )
        losses.append(trainer.epochs.gradient(rollout, critic_only=False)["policy/loss"])
        gradients.append(torch.cat([p.grad.flatten() for _, p in trainer.policy.trainable]))
    assert gradients[0].abs().max() > 1e-4
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-6)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradients[0], gradients[2], rtol=1e-4, atol=1e-6)


def test_the_mean_of_the_loss_is_over_tokens_or_over_responses(tiny_models, pairs):
    """At ratio 1 the policy loss of a token is minus its advantage."""
    rollout = ragged_rollout(tiny_models, pairs)
    rows = [a[m] for a, m in zip(rollout.advantages, rollout.response_mask, strict=True)]
    expected = {
        "token_mean": -torch.cat(rows).mean(),
        "sequence_mean": -torch.stack([row.mean() for row in rows]).mean(),
    }
    assert abs(expected["token_mean"] - expected["sequence_mean"]) > 1e-3
    for loss_aggregation, loss in expected.items():
        trainer = make_trainer(tiny_models, pairs, loss_aggregation=loss_aggregation)
        metrics = trainer.epochs.gradient(rollout, critic_only=False)
        assert metrics["policy/loss"] == pytest.approx(float(loss), abs=1e-5)


def test_dual_clip_bounds_the_loss_of_an_unlikely_token_that_was_bad(tiny_models, pairs):
    """r = e^2 and A = -1: the loss is r without the bound, dual_clip with it, and no gradient is left."""
    rollout = ragged_rollout(tiny_models, pairs)
    shifted = dataclasses.replace(
        rollout, old_logprobs=rollout.old_logprobs - 2.0, advantages=torch.full_like(rollout.advantages, -1.0)
    )
    for dual_clip, loss in ((None, math.exp(2.0)), (3.0, 3.0)):
        trainer = make_trainer(tiny_models, pairs, dual_clip=dual_clip)
        metrics = trainer.epochs.gradient(shifted, critic_only=False)
        assert metrics["policy/loss"] == pytest.approx(loss, rel=1e-4)
        assert metrics["policy/dual_clip_fraction"] == (dual_clip is not None)
        assert (metrics["policy/grad_norm"] == 0) == (dual_clip is not None)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_gradient_checkpointing_recomputes_and_changes_nothing(tiny_models, pairs, architecture):
    calls, metrics = [], []
    for checkpointing in (False, True):
        config = make_config(tiny_models[architecture], pairs, num_ppo_epochs=1)
        config = dataclasses.replace(
            config, model=dataclasses.replace(config.model, gradient_checkpointing=checkpointing)
        )
        trainer = build_trainer(config, RewardSum.from_specs(config.rewards))
        first_norm = next(
            m for name, m in trainer.policy.named_modules() if name.endswith((".ln_1", "input_layernorm"))
        )
        count = []
        rollout, _, _ = trainer.update()
        first_norm.register_forward_hook(lambda *_, count=count: count.append(1))
        trainer.epochs.run(rollout, 1.0, critic_only=False)
        calls.append(len(count))
        metrics.append({k: v for k, v in trainer.update()[2].items() if not k.startswith("time/")})
    assert calls[1] == 2 * calls[0]
    assert metrics[1] == pytest.approx(metrics[0], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("critic", ["shared", "detached", "adapter"])
def test_warmup_trains_the_critic_alone_and_ends(tiny_models, pairs, critic):
    warmup = ValueWarmup(explained_variance=2.0, max_updates=2)  # out of reach: the limit ends it
    trainer = make_trainer(tiny_models, pairs, value_warmup=warmup, critic=critic, entropy_coef=0.01)
    policy_before = [p.detach().clone() for p in trainer.policy.policy_parameters()]
    head_before = trainer.policy.wrapper.v_head.summary.weight.clone()
    seen = []
    for _ in range(2):
        seen.append(trainer.update()[2]["policy/warmup"])
        assert all(torch.equal(a, b) for a, b in zip(policy_before, trainer.policy.policy_parameters(), strict=True))
        optimized = set(trainer.epochs.optimizer.state)
        assert optimized == set(trainer.policy.critic_parameters())  # no moments of the policy either
    assert not torch.equal(head_before, trainer.policy.wrapper.v_head.summary.weight)
    seen.append(trainer.update()[2]["policy/warmup"])
    assert seen == [1.0, 1.0, 0.0]
    assert any(not torch.equal(a, b) for a, b in zip(policy_before, trainer.policy.policy_parameters(), strict=True))


@pytest.mark.parametrize(("whiten_rewards", "gamma"), [(False, 1.0), (True, 1.0), (False, 0.9), (True, 0.9)])
def test_a_new_critic_begins_at_the_mean_return(tiny_models, pairs, whiten_rewards, gamma):
    """By hand: what is still to come at every token, the mean of that for each response, the mean of those."""
    trainer = make_trainer(
        tiny_models, pairs, rewards=[RewardSpec(path="test_trainer.half_and_span")], missing_eos_penalty=2.0,
        whiten_rewards=whiten_rewards, gamma=gamma, gae_lambda=1.0,
    )  # fmt: skip
    started = []
    start = trainer.policy.start_values_at
    trainer.policy.start_values_at = lambda value: (started.append(value), start(value))
    rollout = trainer.update().rollout
    means = []
    for rewards, length in zip(rollout.rewards.tolist(), rollout.lengths.tolist(), strict=True):
        to_come, seen = 0.0, []
        for reward in reversed(rewards[:length]):
            to_come = reward + gamma * to_come
            seen.append(to_come)
        means.append(sum(seen) / length)
    assert started == [pytest.approx(sum(means) / 8, abs=1e-5)]
    assert set(rollout.old_values[rollout.response_mask].tolist()) == set(started)
    if gamma == 1.0:  # and so the critic is right on average
        gap = (rollout.returns - rollout.old_values).sum(-1) / rollout.lengths
        assert gap.mean().item() == pytest.approx(0.0, abs=1e-5)
    if whiten_rewards:
        assert abs(started[0] - rollout.scores.mean().item()) > 0.1


def test_warmup_ends_early_when_the_critic_explains_enough(tiny_models, pairs):
    warmup = ValueWarmup(explained_variance=-1e9, max_updates=3)
    trainer = make_trainer(tiny_models, pairs, value_warmup=warmup)
    assert [trainer.update()[2]["policy/warmup"] for _ in range(2)] == [1.0, 0.0]


def test_reward_per_token_needs_no_critic(tiny_models, pairs):
    trainer = make_trainer(tiny_models, pairs, advantage="reward_per_token", whiten_advantages=False, kl_coef=0.0)
    head_before = trainer.policy.wrapper.v_head.summary.weight.clone()
    rollout, _, metrics = trainer.update()
    expected = (rollout.scores / rollout.lengths).unsqueeze(-1) * rollout.response_mask
    torch.testing.assert_close(rollout.advantages, expected)
    assert torch.equal(head_before, trainer.policy.wrapper.v_head.summary.weight)
    assert "critic/loss" not in metrics


@pytest.mark.parametrize("advantage", ["rloo", "group_relative"])
def test_advantages_against_the_other_samples_of_the_prompt(tiny_models, pairs, advantage):
    trainer = make_trainer(tiny_models, pairs, advantage=advantage, whiten_advantages=False, kl_coef=0.3)
    trainer.update()
    rollout, _, metrics = trainer.update()
    kl = (rollout.old_logprobs - rollout.ref_logprobs).sum(-1)
    first, second = (rollout.scores - 0.3 * kl).view(-1, 2).unbind(-1)  # two samples of each prompt
    gap = first - second
    if advantage == "group_relative":
        gap = gap / 2 / (gap.abs() / 2**0.5 + 1e-4)
    expected = torch.stack([gap, -gap], dim=-1).flatten().unsqueeze(-1) * rollout.response_mask
    torch.testing.assert_close(rollout.advantages, expected)
    assert not [name for name in metrics if name.startswith("critic/") and name != "critic/grad_norm"]
    assert gap.abs().max() > 0


def test_adaptive_coefficient_follows_the_measured_kl(tiny_models, pairs):
    trainer = make_trainer(tiny_models, pairs, adaptive_kl_target=1e-9, adaptive_kl_horizon=80, kl_coef=0.1)
    assert isinstance(trainer.kl_controller, AdaptiveKLController)
    trainer.update()  # KL 0: the error is -1, clipped to -0.2; 8 of 80 responses
    assert trainer.kl_controller.kl_coef == pytest.approx(0.1 * (1 - 0.2 * 8 / 80))
    _, _, metrics = trainer.update()
    assert metrics["objective/kl_coef"] == pytest.approx(0.1 * (1 - 0.2 * 8 / 80))


def test_coefficient_waits_while_the_policy_does(tiny_models, pairs):
    warmup = ValueWarmup(explained_variance=2.0, max_updates=1)
    trainer = make_trainer(
        tiny_models, pairs, adaptive_kl_target=1.0, adaptive_kl_horizon=80, kl_coef=0.1, value_warmup=warmup
    )
    assert [trainer.update().metrics["objective/kl_coef"] for _ in range(3)] == pytest.approx([0.1, 0.1, 0.098])


def test_entropy_bonus_raises_entropy(tiny_models, pairs):
    entropies = []
    for coefficient in (0.0, 5.0):
        trainer = make_trainer(tiny_models, pairs, entropy_coef=coefficient, lr_schedule="constant", kl_coef=0.0)
        entropies.append([trainer.update()[2]["objective/entropy"] for _ in range(4)][-1])
    assert entropies[1] > entropies[0] + 0.05


def test_learning_rate_decays_linearly(tiny_models, pairs):
    trainer = make_trainer(tiny_models, pairs)
    assert [trainer.update()[2]["policy/learning_rate"] for _ in range(3)] == pytest.approx([1e-2, 7.5e-3, 5e-3])


def test_same_seed_same_numbers(tiny_models, pairs):
    runs = []
    for seed in (0, 0, 1):
        trainer = make_trainer(tiny_models, pairs, seed=seed)
        metrics = [trainer.update()[2] for _ in range(2)]
        runs.append([{k: v for k, v in m.items() if not k.startswith("time/")} for m in metrics])
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_ppo_raises_the_reward(tiny_models, pairs):
    """The sign of everything: more of the letter e within a few updates, at three seeds."""
    for seed in range(3):
        trainer = make_trainer(
            tiny_models,
            pairs,
            seed=seed,
            num_updates=12,
            batch_size=32,
            mini_batch_size=16,
            micro_batch_size=16,
            kl_coef=0.0,
        )
        scores = [trainer.update()[2]["objective/score"] for _ in range(12)]
        assert sum(scores[-3:]) / 3 > sum(scores[:3]) / 3 + 0.02, (seed, scores)


def test_kl_penalty_holds_the_policy_back(tiny_models, pairs):
    kls = []
    for kl_coef in (0.0, 1.0):
        trainer = make_trainer(
            tiny_models, pairs, num_updates=8, batch_size=16, kl_coef=kl_coef, lr_schedule="constant"
        )
        kls.append([trainer.update()[2]["objective/kl"] for _ in range(8)][-1])
    assert kls[1] < 0.5 * kls[0]


def test_config_contradictions(tiny_models, pairs):
    config = make_config(tiny_models["gpt2"], pairs)
    for options, message in [
        ({"mini_batch_size": 10}, "mini_batch_size 10 is larger than batch_size 8"),
        ({"num_generations": 3}, "batch_size 8 is not divisible by num_generations 3"),
        ({"num_generations": 1, "advantage": "rloo"}, "num_generations is 1; advantage rloo"),
        ({"entropy_coef": -0.01}, "entropy_coef is -0.01; it must be at least 0"),
        ({"gamma": 1.5}, "gamma is 1.5; it must be between 0 and 1"),
        ({"rewards": []}, "rewards is empty"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be greater than 0"),
        ({"sampling": SamplingConfig(temperature=0)}, "temperature is 0"),
        ({"sampling": SamplingConfig(top_p=0.9)}, "top_p is 0.9"),
    ]:
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(config, **options)
