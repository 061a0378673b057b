"""What a run does when something goes wrong by itself."""

import dataclasses

import pytest
import torch
from tiny_runs import COUNT_E, make_config, make_trainer, parameters

from rlhf.config import WatchConfig
from rlhf.errors import UserError
from rlhf.ppo.rollout_files import load_rollout
from rlhf.ppo.trainer import Callback
from rlhf.ppo.update import NonFiniteError
from rlhf.rewards import RewardSpec
from rlhf.runs.files import read_jsonl
from rlhf.stages.ppo import run_ppo


class Poison(Callback):
    """NaN among the advantages of some updates, on the longest response, where it counts."""

    def __init__(self, *updates: int) -> None:
        self.updates = updates

    def after_advantages(self, trainer, rollout):
        if trainer.updates_done + 1 in self.updates:
            advantages = rollout.advantages.clone()
            advantages[rollout.lengths.argmax(), 0] = float("nan")
            return dataclasses.replace(rollout, advantages=advantages)
        return None


def test_a_step_that_is_not_finite_is_skipped_and_counted(tiny_models, pairs):
    trainer = make_trainer(tiny_models, pairs)
    trainer.callbacks = [Poison(1)]
    _, _, metrics = trainer.update()
    assert metrics["policy/skipped_steps"] == 2  # 2 epochs of 2 minibatches: the poisoned row is in one of each
    assert metrics["policy/steps"] == 2
    assert torch.isfinite(parameters(trainer)).all()
    assert all(value == value for value in metrics.values())
    _, _, metrics = trainer.update()
    assert metrics["policy/skipped_steps"] == 0


def test_a_skipped_step_leaves_no_trace(tiny_models, pairs):
    trainer = make_trainer(tiny_models, pairs, num_ppo_epochs=1, mini_batch_size=8)
    trainer.callbacks = [Poison(1)]
    before = parameters(trainer)
    trainer.policy.start_values_at = lambda value: None
    _, _, metrics = trainer.update()
    assert (metrics["policy/steps"], metrics["policy/skipped_steps"]) == (0, 1)
    assert torch.equal(parameters(trainer), before)
    assert not trainer.epochs.optimizer.state
    assert "policy/loss" not in metrics


def test_too_many_in_a_row_end_the_run_with_the_minibatch_on_disk(tiny_models, pairs, tmp_path):
    config = make_config(
        tiny_models["gpt2"],
        pairs,
        output_dir=str(tmp_path / "run"),
        num_ppo_epochs=1,
        mini_batch_size=8,
        max_skipped_steps=1,
    )
    with pytest.raises(UserError, match=r"not finite in 2 optimizer steps in a row .*non_finite_minibatch"):
        run_ppo(config, callbacks=[Poison(2, 3, 4)])
    minibatch = load_rollout(tmp_path / "run" / "non_finite_minibatch")
    assert len(minibatch) == 8
    assert minibatch.advantages.isnan().sum() == 1
    assert len(read_jsonl(tmp_path / "run" / "metrics.jsonl")) == 2
    trainer = make_trainer(tiny_models, pairs, num_ppo_epochs=1, mini_batch_size=8, max_skipped_steps=0)
    with pytest.raises(NonFiniteError):  # replayed
        trainer.epochs.run(minibatch, 1.0, critic_only=False)


def test_epochs_end_early_when_the_policy_has_moved_too_far(tiny_models, pairs):
    free = make_trainer(tiny_models, pairs, num_ppo_epochs=4).update().metrics
    trainer = make_trainer(tiny_models, pairs, num_ppo_epochs=4, target_kl=free["policy/approx_kl"] / 2)
    limited = trainer.update().metrics
    assert free["policy/steps"] == 8
    assert 1 <= limited["policy/steps"] < 8
    assert limited["policy/approx_kl"] < free["policy/approx_kl"]


def test_reward_hacking_is_flagged_and_can_end_the_run(tiny_models, pairs, tmp_path, capsys):
    """The letter e is trained on; texts without any e are the gold."""
    config = make_config(
        tiny_models["gpt2"],
        pairs,
        output_dir=str(tmp_path / "run"),
        rewards=[COUNT_E, RewardSpec(path="test_guards.no_e", weight=0.0)],
        watch=WatchConfig(gold="no_e", stop_on_hacking=True),
        num_updates=60,
        batch_size=32,
        mini_batch_size=16,
        micro_batch_size=16,
        kl_coef=0.0,
        lr_schedule="constant",
    )
    run_ppo(config)
    warnings = read_jsonl(tmp_path / "run" / "warnings.jsonl")
    rows = read_jsonl(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in warnings if row["name"] == "reward_hacking"] == [len(rows)]
    assert len(rows) < 60
    assert rows[-1]["objective/score"] > rows[0]["objective/score"]
    assert "warning: update" in capsys.readouterr().err
    assert (tmp_path / "run" / "done.json").is_file()


def no_e(prompts, completions, **columns):
    return [float(all("e" not in word for word in text.split())) for text in completions]


@pytest.mark.parametrize(
    ("watch", "message"),
    [
        (WatchConfig(gold="length"), "watch.gold is 'length'; it must be one of the rewards: count_e"),
        (WatchConfig(gold="count_e"), "watch.gold 'count_e' has weight 1; it must not be trained on"),
    ],
)
def test_gold_must_be_measured_and_not_trained_on(tiny_models, pairs, watch, message):
    with pytest.raises(UserError, match=message):
        make_config(tiny_models["gpt2"], pairs, watch=watch)
