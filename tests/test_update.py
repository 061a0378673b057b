"""The clipped epochs against the equations, one token at a time in plain Python."""

import dataclasses
import math

import pytest
import torch
from tiny_runs import make_trainer

from rlhf.ppo.update import NonFiniteError, mean_stats

ASIDE = {"clip_range": 0.1, "value_clip_range": 0.4, "vf_coef": 0.3, "max_grad_norm": 1e9}  # no two of them alike


def off_policy(rollout):
    """The rollout with old values, advantages and returns far enough away for every clip to act on some tokens."""
    random = torch.Generator().manual_seed(0)

    def near(x, scale):
        return torch.where(rollout.response_mask, x + scale * torch.randn(x.shape, generator=random), 0.0)

    return dataclasses.replace(
        rollout,
        old_logprobs=near(rollout.old_logprobs, 0.3),
        old_values=near(rollout.old_values, 0.8),
        advantages=near(torch.zeros_like(rollout.advantages), 1.0),
        returns=near(rollout.old_values, 1.0),
    )


def clamp(x, low, high):
    return min(max(x, low), high)


def slow_losses(config, now, rollout):
    """Every token's policy loss, value loss and entropy, by row."""
    rows = []
    for row, mask in enumerate(rollout.response_mask):
        tokens = []
        for t in mask.nonzero().flatten().tolist():
            advantage = float(rollout.advantages[row, t])
            ratio = math.exp(float(now.logprobs[row, t]) - float(rollout.old_logprobs[row, t]))
            clipped_ratio = clamp(ratio, 1 - config.clip_range, 1 + config.clip_range)
            value, old = float(now.values[row, t]), float(rollout.old_values[row, t])
            near_old = old + clamp(value - old, -config.value_clip_range, config.value_clip_range)
            target = float(rollout.returns[row, t])
            policy_loss = max(-advantage * ratio, -advantage * clipped_ratio)
            value_loss = max((value - target) ** 2, (near_old - target) ** 2) / 2
            tokens.append((policy_loss, value_loss, float(now.entropy[row, t])))
        rows.append(tokens)
    return rows


def aggregated(rows, column, aggregation):
    if aggregation == "token_mean":
        every = [token[column] for row in rows for token in row]
        return sum(every) / len(every)
    return sum(sum(token[column] for token in row) / len(row) for row in rows) / len(rows)


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean"])
def test_the_loss_is_that_of_the_equations(tiny_models, pairs, aggregation):
    trainer = make_trainer(tiny_models, pairs, **ASIDE, entropy_coef=0.05, loss_aggregation=aggregation)
    rollout = off_policy(trainer.update().rollout)
    with torch.no_grad():
        loss, losses, stats = trainer.epochs.loss(rollout, critic_only=False)
        critic_loss, _, _ = trainer.epochs.loss(rollout, critic_only=True)
    now = trainer.forward(rollout, with_values=True, with_entropy=True)
    rows = slow_losses(trainer.config, now, rollout)
    policy_loss, value_loss, entropy = (aggregated(rows, column, aggregation) for column in range(3))
    assert float(losses["policy/loss"]) == pytest.approx(policy_loss, rel=1e-4)
    assert float(losses["critic/loss"]) == pytest.approx(value_loss, rel=1e-4)
    assert float(loss) == pytest.approx(policy_loss + 0.3 * value_loss - 0.05 * entropy, rel=1e-4)
    assert float(critic_loss) == pytest.approx(0.3 * value_loss, rel=1e-4)
    assert 0 < float(stats["policy/clip_fraction"]) < 1
    assert 0 < float(stats["critic/clip_fraction"]) < 1


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean"])
@pytest.mark.parametrize("critic_only", [False, True])
def test_the_metrics_of_micro_batches_add_up_to_those_of_the_minibatch(tiny_models, pairs, aggregation, critic_only):
    trainer = make_trainer(tiny_models, pairs, **ASIDE, micro_batch_size=3, loss_aggregation=aggregation)
    rollout = off_policy(trainer.update().rollout)
    n_tokens = torch.tensor([1, 10, 2, 9, 3, 8, 4, 7]).minimum(rollout.lengths)
    ragged = torch.arange(rollout.response_mask.shape[1]) < n_tokens.unsqueeze(-1)
    rollout = dataclasses.replace(rollout, response_mask=ragged)
    metrics = trainer.epochs.gradient(rollout, critic_only)
    loss, losses, stats = trainer.epochs.loss(rollout, critic_only)
    assert not any(value.requires_grad for value in losses.values())  # or the graph would live as long as the metrics
    whole = {name: float(value) for name, value in (losses | stats).items()}
    assert {name: metrics[name] for name in whole} == pytest.approx(whole, rel=1e-4, abs=1e-6)
    trainer.epochs.optimizer.zero_grad()
    loss.backward()
    for name in ("policy", "critic"):
        gradients = [p.grad for p in getattr(trainer.policy, f"{name}_parameters")() if p.grad is not None]
        norm = sum(float(g.square().sum()) for g in gradients) ** 0.5
        assert metrics[f"{name}/grad_norm"] == pytest.approx(norm, rel=1e-3)


def test_policy_and_critic_gradients_are_clipped_one_by_one(tiny_models, pairs):
    trainer = make_trainer(tiny_models, pairs, **(ASIDE | {"max_grad_norm": 1e-3}))
    metrics = trainer.epochs.gradient(off_policy(trainer.update().rollout), critic_only=False)
    assert min(metrics["policy/grad_norm"], metrics["critic/grad_norm"]) > 1e-2  # told as they were before the clip
    for parameters in (trainer.policy.policy_parameters(), trainer.policy.critic_parameters()):
        norm = sum(float(p.grad.square().sum()) for p in parameters) ** 0.5
        assert norm == pytest.approx(1e-3, rel=1e-2)


def test_policy_and_critic_have_a_learning_rate_each(tiny_models, pairs):
    trainer = make_trainer(tiny_models, pairs, learning_rate=1e-3, critic_learning_rate=5e-3)
    rollout = trainer.update().rollout
    metrics = trainer.epochs.run(rollout, 0.5, critic_only=False)
    rates = {id(p): group["lr"] for group in trainer.epochs.optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in trainer.policy.policy_parameters()} == {0.5e-3}
    assert {rates[id(p)] for p in trainer.policy.critic_parameters()} == {2.5e-3}
    assert metrics["policy/learning_rate"] == 0.5e-3
    assert {group["weight_decay"] for group in trainer.epochs.optimizer.param_groups} == {0.0}


def test_the_critic_alone_moves_even_after_the_policy_has(tiny_models, pairs):
    """A gradient of 0 would not be enough: Adam's moments would carry the policy on."""
    trainer = make_trainer(tiny_models, pairs)
    rollout = trainer.update().rollout
    policy, critic = (
        [p.detach().clone() for p in of()]
        for of in (trainer.policy.policy_parameters, trainer.policy.critic_parameters)
    )
    trainer.epochs.run(rollout, 1.0, critic_only=True)
    assert all(torch.equal(a, b) for a, b in zip(policy, trainer.policy.policy_parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(critic, trainer.policy.critic_parameters(), strict=True))


def test_minibatches_come_from_the_shuffler_alone(tiny_models, pairs):
    """All ranks draw the same, whatever their other random generators do."""
    trainer = make_trainer(tiny_models, pairs, learning_rate=1e-12, critic_learning_rate=1e-12)
    rollout = off_policy(trainer.update().rollout)
    ratios = []
    for seed, shuffler in ((0, 0), (1, 0), (0, 1)):
        torch.manual_seed(seed)
        trainer.epochs.shuffler.manual_seed(shuffler)
        ratios.append(trainer.epochs.run(rollout, 1.0, critic_only=False)["policy/ratio_first_minibatch"])
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-5)
    assert ratios[0] != pytest.approx(ratios[2], rel=1e-5)


def test_it_gives_up_after_one_skipped_step_too_many(tiny_models, pairs):
    trainer = make_trainer(tiny_models, pairs, max_skipped_steps=2, num_ppo_epochs=1)
    rollout = make_trainer(tiny_models, pairs).update().rollout
    broken = dataclasses.replace(rollout, advantages=torch.where(rollout.response_mask, torch.nan, 0.0))
    assert trainer.epochs.run(broken, 1.0, critic_only=False)["policy/skipped_steps"] == 2  # two minibatches
    with pytest.raises(
        NonFiniteError, match=r"not finite in 3 optimizer steps in a row \(max_skipped_steps is 2\)"
    ) as caught:
        trainer.epochs.run(broken, 1.0, critic_only=False)
    assert len(caught.value.minibatch) == 4


def test_means_over_the_steps():
    steps = [{"policy/loss": 1.0, "policy/ratio_mean": 1.5}, {"policy/loss": 4.0, "policy/ratio_mean": 0.5}]
    expected = {"policy/loss": 2.5, "policy/ratio_mean": 1.0, "policy/ratio_first_minibatch": 1.5}
    assert mean_stats(steps) == expected
    assert mean_stats([]) == {}
