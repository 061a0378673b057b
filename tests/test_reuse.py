"""A batch that several updates learn from: nothing is sampled again, everything else is computed anew and corrected."""

import dataclasses
import itertools
import math

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import AskToStop, make_config, make_trainer, parameters

from rlhf.config import CheckpointConfig, EnvironmentSpec, SamplingConfig, ValueWarmup
from rlhf.config.generation import GenerationConfig
from rlhf.errors import Interrupted, UserError
from rlhf.ppo.state import restored_batch, stored_batch
from rlhf.ppo.trainer import Callback
from rlhf.report.charts import frontier
from rlhf.report.compare import Group
from rlhf.report.headline import _ends_of
from rlhf.report.load import read_run
from rlhf.report.plots import plot_reward_and_kl
from rlhf.rewards import Span, SpanReward
from rlhf.runs.files import read_jsonl
from rlhf.runs.state_files import load_state, save_state
from rlhf.stages.ppo import run_ppo
from rlhf.watch.watch import Watch

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
    for first, second in itertools.pairwise(updates):
        again = second.metrics["sampling/staleness"] > 0
        for name in ("sequence_ids", "sampler_logprobs", "scores"):
            assert torch.equal(getattr(first.rollout, name), getattr(second.rollout, name)) == again, name
        for name in ("old_logprobs", "old_values", "advantages", "kl"):
            assert not torch.equal(getattr(first.rollout, name), getattr(second.rollout, name)), name


def test_the_first_update_on_a_batch_is_the_usual_one(tiny_models, pairs):
    once, again = (make_trainer(tiny_models, pairs, **REUSED | {"reuse_batch": n}) for n in (1, 3))
    metrics = once.update().metrics
    again.update()
    assert torch.equal(parameters(once), parameters(again))
    assert "sampling/staleness" not in metrics


class Ask(Callback):
    """What the networks say of the rollout right before they learn from it."""

    def after_advantages(self, trainer, rollout):
        self.before = trainer.forward(rollout, with_values=True, with_entropy=False)


def test_a_reused_rollout_is_what_the_networks_of_now_say(trainer):
    kept = Ask()
    trainer.callbacks = [kept]
    for _ in range(2):
        rollout = trainer.update().rollout
        mask = rollout.response_mask
        torch.testing.assert_close(rollout.old_logprobs[mask], kept.before.logprobs[mask])
        torch.testing.assert_close(rollout.old_values[mask], kept.before.values[mask])
    assert (rollout.old_logprobs - rollout.sampler_logprobs)[mask].abs().max() > 1e-2


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


def outcome(folder) -> tuple:
    rows = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_jsonl(folder / "metrics.jsonl")]
    policy = load_file(folder / "policy" / "adapter_model.safetensors")
    return rows, read_jsonl(folder / "samples.jsonl"), {name: weight.tolist() for name, weight in policy.items()}


PLAIN = {"score_normalization": "standardize", "adaptive_kl_target": 0.5, "adaptive_kl_horizon": 40}
EPISODES = {
    "rewards": None, "environment": EnvironmentSpec(name="talkers.Echo", args={"turns": 3}),
    "sampling": SamplingConfig(max_new_tokens=6, stop=["e", "t", " ", "a", "r", "<"]),
}  # fmt: skip


@pytest.mark.parametrize("options", [PLAIN, EPISODES], ids=["responses", "episodes"])
def test_resumes_in_the_middle_of_a_reused_batch(tiny_models, pairs, tmp_path, options):
    options = REUSED | {"num_updates": 4, "checkpoint": CheckpointConfig(save_steps=100)} | options

    def run(name: str, *callbacks) -> None:
        run_ppo(
            make_config(tiny_models["gpt2"], pairs, output_dir=str(tmp_path / name), **options), callbacks=callbacks
        )

    run("straight")
    with pytest.raises(Interrupted):
        run("stopped", AskToStop(2))
    phases = Phases()
    run("stopped", phases)
    assert phases.seen[:2] == [("updated", 3), ("sampled", 3)]  # the third update goes on with the batch of the first
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "straight")


def test_controller_moments_and_warmup_follow_new_batches_alone(tiny_models, pairs):
    options = {"score_normalization": "scale", "adaptive_kl_target": 1e-9, "adaptive_kl_horizon": 8}
    warmup = ValueWarmup(explained_variance=-1e9, max_updates=4)
    trainer = make_trainer(tiny_models, pairs, **REUSED | options, value_warmup=warmup)
    seen, warming, coefficients = [], [], []
    for _ in range(6):
        metrics = trainer.update().metrics
        seen.append(trainer.score_moments.count)
        warming.append(metrics["policy/warmup"])
        coefficients.append(trainer.kl_controller.kl_coef)
    assert seen == [8, 8, 8, 16, 16, 16]
    assert warming == [1, 1, 1, 0, 0, 0]  # the critic is asked what it explains of returns that it has not seen
    assert coefficients[0] == coefficients[2] == 0.05
    assert coefficients[3] != 0.05
    assert coefficients[3] == coefficients[5]


KL = {"objective/kl", "objective/kl_per_token", "objective/rlhf_reward"}


@pytest.mark.parametrize("updates", [5, 6])
def test_the_kl_is_that_of_new_responses_everywhere(tiny_models, pairs, tmp_path, updates):
    """Over responses of an earlier policy the estimate is not the policy's, and may even be negative."""
    options = REUSED | {"output_dir": str(tmp_path / "run"), "num_updates": updates, "learning_rate": 0.01}
    policy = run_ppo(make_config(tiny_models["gpt2"], pairs, **options))
    rows = read_jsonl(tmp_path / "run" / "metrics.jsonl")
    measured = {row["step"]: row for row in rows if row.keys() >= KL}
    assert list(measured) == [1, 4]
    assert all(KL.isdisjoint(row) for row in rows if row["step"] not in measured)
    said = f"{measured[4]['objective/kl']:.2f} nats per response"
    assert said in (policy / "README.md").read_text()
    run = read_run(tmp_path / "run")
    assert _ends_of(run.trained_rows, "ppo")[1]["objective/kl"][1] in {row["objective/kl"] for row in measured.values()}
    assert [chart["series"][0]["t"] for chart in frontier([Group("run", [run])])] == [[1, 4]]
    plot_reward_and_kl(tmp_path / "run", tmp_path / "plot.png", 0)
    assert (tmp_path / "plot.png").stat().st_size > 0


def test_the_watch_counts_each_batch_once(tiny_models, pairs, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Watch, "check", lambda self, step, metrics: seen.append(step) or [])
    run_ppo(make_config(tiny_models["gpt2"], pairs, output_dir=str(tmp_path / "run"), **REUSED | {"num_updates": 4}))
    assert seen == [1, 4]
    assert [row["step"] for row in read_jsonl(tmp_path / "run" / "metrics.jsonl")] == [1, 2, 3, 4]


class Told:
    """A reward that keeps what it was told of the training; it logs and pays a span."""

    def __init__(self) -> None:
        self.epochs: list[float] = []

    def __call__(self, prompts, completions, trainer_state, log_extra, log_metric, **columns):
        self.epochs.append(trainer_state.epoch)
        log_extra("first", [text[:1] for text in completions])
        log_metric("rows", len(completions))
        return [SpanReward(0.5, (Span(0, 1, 0.25),) if text else ()) for text in completions]


@pytest.fixture
def told(trainer):
    reward = Told()
    trainer.reward_fn.rewards = (dataclasses.replace(trainer.reward_fn.rewards[0], function=reward),)
    return reward


def test_an_epoch_is_counted_in_prompts_that_were_drawn(trainer, told):
    for _ in range(4):
        trainer.update()
    assert told.epochs == [0.0, 0.5]  # four of eight prompts a batch


def test_a_batch_with_all_that_rewards_say_survives_a_checkpoint(trainer, told, tmp_path):
    trainer.update()
    responses, [scoring] = trainer.batch
    save_state(tmp_path, "batch", stored_batch(trainer.batch))
    again, [scores] = restored_batch(load_state(tmp_path, "batch"), trainer.policy.device)
    assert scores.result() == scoring.result()
    assert scores.result().logged.extra["first"]
    assert scores.result().spans[0]
    assert (again.texts, again.examples, again.episodes) == (responses.texts, responses.examples, None)
    assert all(torch.equal(x, getattr(again, name)) for name, x in vars(responses).items() if torch.is_tensor(x))


def test_responses_to_sample_in_all_are_each_used_several_times(tiny_models, pairs):
    options = {"num_updates": None, "total_episodes": 20}
    assert make_config(tiny_models["gpt2"], pairs, **REUSED | options).num_updates == 9
    with pytest.raises(UserError, match="in batches of 8, each for 3 updates, are 9; keep one of the two"):
        make_config(tiny_models["gpt2"], pairs, **REUSED | {"total_episodes": 20})


SERVER = GenerationConfig(engine="vllm", mode="server", server_url="http://localhost:8000", overlap=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"importance_correction": "none"}, "reuse_batch is 3, so that .* set importance_correction: token"),
        ({"generation": SERVER}, "generation.overlap is true and reuse_batch is 3; .* keep one"),
        ({"num_updates": 2}, "reuse_batch is 3, but num_updates is 2"),
        ({"reuse_batch": 0}, "reuse_batch is 0; it must be"),
    ],
)
def test_what_cannot_be_reused_is_refused(tiny_models, pairs, options, message):
    with pytest.raises(UserError, match=message):
        make_config(tiny_models["gpt2"], pairs, **REUSED | options)
