"""A server that samples the next batch while the policy learns from this one, against the stand-in for vLLM."""

import dataclasses
import os
import signal
import threading

import pytest
import vllm_standin
from safetensors.torch import load_file
from tiny_runs import make_config

from rlhf.config import CheckpointConfig, DataConfig
from rlhf.config.generation import GenerationConfig
from rlhf.errors import Interrupted, UserError
from rlhf.ppo.trainer import Callback
from rlhf.rewards import RewardSum
from rlhf.runs.files import read_jsonl
from rlhf.sampling.vllm_engine import merged_weights
from rlhf.stages.ppo import build_trainer, run_ppo


@pytest.fixture
def served(vllm, tiny_models):
    return vllm_standin.Serve(tiny_models["gpt2"], logprobs_mode="processed_logprobs")


def overlapped(served, tiny_models, pairs, **options):
    generation = GenerationConfig(engine="vllm", mode="server", server_url=served.url, overlap=True)
    known = {"generation": generation, "importance_correction": "token"}
    config = make_config(tiny_models["gpt2"], pairs, **known | options)
    return dataclasses.replace(config, data=DataConfig(train=pairs, max_prompt_tokens=64))


def trainer_of(config):
    return build_trainer(config, RewardSum.from_specs(config.rewards))


def weights_of(trainer) -> dict:
    return {name: weight.clone() for name, weight in merged_weights(trainer.policy.language_model)}


def same(first: dict, second: dict) -> bool:
    return all(first[name].equal(second[name]) for name in second)


def test_every_batch_but_the_first_is_one_update_old(served, tiny_models, pairs):
    trainer = trainer_of(overlapped(served, tiny_models, pairs))
    at_sampling, generate = [], served.llm.generate

    def noting(*arguments, **named):
        at_sampling.append({name: p.detach().clone() for name, p in served.llm.worker.model.named_parameters()})
        return generate(*arguments, **named)

    served.llm.generate = noting
    policies, stale, weights = [], [], []
    for _ in range(4):
        policies.append(weights_of(trainer))
        metrics = trainer.update().metrics
        stale.append(metrics["sampling/staleness"])
        weights.append(metrics["sampling/weight_mean"])
        assert metrics["policy/ratio_first_minibatch"] == pytest.approx(1.0, abs=1e-6)  # to the policy of now
    assert stale == [0, 1, 1, 1]
    assert weights[0] == pytest.approx(1.0, abs=1e-5)
    assert all(abs(weight - 1) > 1e-4 for weight in weights[1:])
    n_rows = trainer.config.batch_size
    assert len(at_sampling) == 4 * n_rows  # a request for each row; none for a fifth batch
    for batch, policy in enumerate([0, 0, 1, 2]):
        assert all(same(at_sampling[row], policies[policy]) for row in range(batch * n_rows, (batch + 1) * n_rows))
    assert not same(policies[1], policies[0])


class LetTheServerGoOn(Callback):
    def __init__(self, gate: threading.Event) -> None:
        self.gate = gate

    def after_advantages(self, trainer, rollout):
        self.gate.set()


def test_the_policy_learns_while_the_server_samples(served, tiny_models, pairs):
    """The server does not answer for the second batch until the first has come to its clipped epochs."""
    trainer, gate = trainer_of(overlapped(served, tiny_models, pairs, num_updates=2)), threading.Event()
    trainer.callbacks = [LetTheServerGoOn(gate)]
    asked, completions = [], served.completions

    def waiting(**request):
        asked.append(request)
        if len(asked) > trainer.config.batch_size and not gate.wait(timeout=60):
            raise TimeoutError("the trainer waits for the batch after the one that it has")
        return completions(**request)

    served.completions = waiting
    assert len(trainer.update().rollout) == len(trainer.update().rollout) == 8


class AskToStop(Callback):
    """A signal in the middle of an update, while a batch is being sampled."""

    def after_advantages(self, trainer, rollout):
        if trainer.updates_done + 1 == 2:
            os.kill(os.getpid(), signal.SIGTERM)


def outcome(folder) -> tuple:
    rows = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_jsonl(folder / "metrics.jsonl")]
    policy = load_file(folder / "policy" / "adapter_model.safetensors")
    return rows, read_jsonl(folder / "samples.jsonl"), {name: weight.tolist() for name, weight in policy.items()}


def test_resumes_with_the_batch_that_was_on_its_way(served, tiny_models, pairs, tmp_path):
    """It is the first of a pass over the data, whose order has been drawn for it: eight prompts, four an update."""
    options = {"num_updates": 5, "checkpoint": CheckpointConfig(save_steps=2)}

    def run(name: str, *callbacks) -> None:
        config = overlapped(served, tiny_models, pairs, output_dir=str(tmp_path / name), **options)
        run_ppo(config, callbacks=callbacks)

    run("straight")
    with pytest.raises(Interrupted):
        run("stopped", AskToStop())
    run("stopped")
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "straight")


def test_only_a_server_overlaps():
    with pytest.raises(UserError, match=r"generation\.overlap is true, but generation\.mode is colocate"):
        GenerationConfig(engine="vllm", overlap=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"importance_correction": "none"}, "importance_correction is none; set importance_correction: token"),
        ({"rollout_batch_size": 4}, "leave out environment and rollout_batch_size"),
    ],
)
def test_what_cannot_overlap_is_refused(served, tiny_models, pairs, options, message):
    with pytest.raises(UserError, match=message):
        overlapped(served, tiny_models, pairs, **options)
