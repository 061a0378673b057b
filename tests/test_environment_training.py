"""Training in an environment: the same updates as with rewards, resumed, on two processes, and when it fails."""

import dataclasses
import json

import pytest
import torch
from processes import launch
from safetensors.torch import load_file
from tiny_data import write_pairs
from tiny_runs import COUNT_E, Crash, command_line, make_config

from rlhf.cli import main
from rlhf.config import CheckpointConfig, DataConfig, EnvironmentSpec, InspectConfig, SamplingConfig
from rlhf.environments.returns import reward_fn
from rlhf.errors import EpisodeError, UserError
from rlhf.runs.files import read_jsonl
from rlhf.stages.ppo import build_trainer, run_ppo

ECHO = EnvironmentSpec(name="talkers.Echo", args={"turns": 3})
STOP = SamplingConfig(max_new_tokens=6, stop=["e", "t", " ", "a", "r", "<"])
"""So that a random model's turns end."""
OPTIONS = {
    "rewards": None, "environment": ECHO, "sampling": STOP, "num_updates": 3, "num_ppo_epochs": 1,
    "checkpoint": CheckpointConfig(save_steps=1), "inspect": InspectConfig(prompts=1, every=2),
}  # fmt: skip


def outcome(folder):
    metrics = read_jsonl(folder / "metrics.jsonl")
    return {
        "metrics": [{k: v for k, v in row.items() if not k.startswith("time/")} for row in metrics],
        "samples": read_jsonl(folder / "samples.jsonl"),
        "policy": {str(f): x.tolist() for f, x in load_file(folder / "policy" / "adapter_model.safetensors").items()},
        "rollouts": [f.read_bytes() for f in sorted((folder / "rollouts").rglob("*.*"))],
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(tiny_models, data, tmp_path_factory):
    """A run that nobody interrupted, and its folder."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    config = make_config(tiny_models["gpt2"], data, output_dir=str(folder), **OPTIONS)
    run_ppo(config)
    return config, folder


def test_a_reward_is_the_environment_of_one_step(tiny_models, data):
    """Bit for bit: what was sampled, what it earned, its advantages, and the parameters after two updates."""
    chat, updates, parameters = DataConfig(train=data, as_chat=True), [], []
    for rewards, environment in (([COUNT_E], None), ([], EnvironmentSpec(name="talkers.CountE"))):
        plain = make_config(tiny_models["gpt2"], data, rewards=rewards, environment=environment)
        config = dataclasses.replace(plain, data=chat)
        trainer = build_trainer(config, reward_fn(config.rewards, config.environment))
        updates.append([trainer.update() for _ in range(2)][-1])
        parameters.append(torch.cat([p.detach().flatten() for _, p in trainer.policy.trainable]))
    reward, one_step = updates
    for name in ("sequence_ids", "response_mask", "sampler_logprobs", "scores", "rewards", "advantages", "returns"):
        assert torch.equal(getattr(reward.rollout, name), getattr(one_step.rollout, name)), name
    assert reward.scores.total == one_step.scores.total
    assert torch.equal(*parameters)
    assert one_step.metrics["reward/CountE"] == reward.metrics["reward/count_e"] > 0


def test_metrics_and_samples_tell_of_the_episodes(whole):
    _, folder = whole
    row = read_jsonl(folder / "metrics.jsonl")[-1]
    assert 1 <= row["reward_metric/turns"] <= 3
    assert row["reward/Echo"] == pytest.approx(row["objective/score"])
    assert 0 <= row["reward_metric/done"] == row["response/eos_rate"]
    sample = read_jsonl(folder / "samples.jsonl")[0]
    assert sample["ending"] in ("done", "cut")
    stored = read_jsonl(folder / "rollouts" / "000001" / "rows.jsonl")[0]
    assert stored["episode"]["messages"][0]["role"] == "assistant"
    assert "turn 1: +1" in stored["explanation"]


def test_samples_of_a_prompt_get_the_same_seed_and_others_another(tiny_models, data):
    config = make_config(tiny_models["gpt2"], data, **OPTIONS)
    trainer = build_trainer(config, reward_fn([], ECHO))
    seeds = [prompt.example.columns["seed"] for prompt in trainer.next_prompts()]
    assert seeds[0::2] == seeds[1::2]
    assert len(set(seeds)) == 4


class Unplugged(Crash):
    """An environment that fails in the middle of a run."""

    def after_sampling(self, trainer, responses):
        if trainer.updates_done + 1 == self.at:
            raise EpisodeError("environment 'x' raised")


@pytest.mark.parametrize("kind", [Unplugged, pytest.param(Crash, marks=pytest.mark.long)])
def test_killed_and_resumed_is_never_killed(whole, tmp_path, kind):
    """Also where an environment has killed it: mended, the same command ends where a run without the fault does."""
    config, folder = whole
    again = dataclasses.replace(config, output_dir=str(tmp_path / "run"))
    with pytest.raises((EpisodeError, RuntimeError)):
        run_ppo(again, callbacks=[kind(2)])
    run_ppo(again)
    assert outcome(tmp_path / "run") == outcome(folder)


@pytest.mark.parametrize("fault", ["raises", "hangs", "nonsense"])
def test_a_fault_ends_the_run_with_one_line(tiny_models, data, tmp_path, capsys, fault):
    faulty = EnvironmentSpec(name="talkers.Faulty", args={"fault": fault}, timeout=0.5)
    config = make_config(tiny_models["gpt2"], data, **OPTIONS | {"environment": faulty})
    with pytest.raises(SystemExit) as ended:
        main(command_line(config, tmp_path))
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("rlhf ppo: error: environment 'talkers.Faulty'")
    assert "turn 2: the model said" in said


def test_what_rescales_the_score_alone_is_refused(tiny_models, data):
    for options in ({"score_clip": 1.0}, {"score_normalization": "scale"}):
        with pytest.raises(UserError, match="with an environment leave them out"):
            make_config(tiny_models["gpt2"], data, **OPTIONS | options)
    with pytest.raises(UserError, match="rewards is not set"):
        make_config(tiny_models["gpt2"], data, **OPTIONS | {"environment": None})


@pytest.mark.long
def test_two_processes_play_their_shares(tiny_models, data, tmp_path):
    """Each rank plays half of the episodes, with seeds of their own; both learn from all of them alike."""
    config = make_config(tiny_models["gpt2"], data, **OPTIONS | {"num_updates": 2})
    done = launch("-m", "rlhf", *command_line(config, tmp_path))
    assert done.returncode == 0, done.stderr
    rows = read_jsonl(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    faulty = EnvironmentSpec(name="talkers.Faulty", args={"fault": "raises"})
    broken = make_config(tiny_models["gpt2"], data, **OPTIONS | {"environment": faulty})
    (tmp_path / "broken").mkdir()
    done = launch("-m", "rlhf", *command_line(broken, tmp_path / "broken"))
    assert done.returncode != 0
    assert done.stderr.count("environment 'talkers.Faulty' raised ZeroDivisionError") >= 1


def test_evaluation_plays_episodes(tiny_models, tmp_path):
    arguments = ["--model", str(tiny_models["gpt2"]), "--environment", "{name: guess_number, args: {largest: 3}}"]
    options = ["--prompts", "5", "--sampling.max_new_tokens", "4", "--output_dir", str(tmp_path / "run")]
    main(["evaluate", *arguments, *options])
    means = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    rows = read_jsonl(tmp_path / "run" / "responses.jsonl")
    assert len(rows) == 5
    assert means["guess_number"] == pytest.approx(sum(row["guess_number"] for row in rows) / 5)
    assert "reward_metric/found" in means
    assert rows[0]["prompt"] == "guess 1 to 3"


def test_the_last_batch_of_an_evaluation_weighs_what_it_holds(tiny_models, tmp_path):
    """Four episodes and one: each counts as much as the others."""
    arguments = ["--model", str(tiny_models["gpt2"]), "--environment", "talkers.Die", "--batch_size", "4"]
    options = ["--prompts", "5", "--sampling.max_new_tokens", "2", "--output_dir", str(tmp_path / "run")]
    main(["evaluate", *arguments, *options])
    means = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    eyes = [row["Die"] for row in read_jsonl(tmp_path / "run" / "responses.jsonl")]
    assert eyes[4] != sum(eyes[:4]) / 4
    assert means["reward_metric/eyes"] == pytest.approx(sum(eyes) / 5)
