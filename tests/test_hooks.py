"""Changing the algorithm from outside: stop strings, prompts made up, callbacks, score normalization."""

import dataclasses
import itertools
import threading

import pytest
import torch
from tiny_data import TEXTS
from tiny_runs import Crash, make_config, make_trainer, parameters

from rlhf.config import InspectConfig, SamplingConfig
from rlhf.errors import UserError
from rlhf.maths.tensors import RunningMoments
from rlhf.parallel.ranks import Ranks
from rlhf.ppo.inspection import Inspection
from rlhf.ppo.rollout import policy_outputs
from rlhf.ppo.rollout_files import load_rollout
from rlhf.ppo.trainer import Callback
from rlhf.rewards import RewardSpec, RewardSum, Scores
from rlhf.runs.files import read_jsonl
from rlhf.stages.ppo import build_trainer, run_ppo


def ten_per_update(prompts, completions, **columns):
    """Scores whose moments are easy: 10 and 30 by turns."""
    return [10.0 + 20.0 * (row % 2) for row in range(len(prompts))]


def test_stop_strings_end_responses_in_training(tiny_models, pairs):
    trainer = make_trainer(tiny_models, pairs, sampling=SamplingConfig(max_new_tokens=30, stop=["e"]))
    rollout, _, metrics = trainer.update()
    assert any("e" in text for text in rollout.texts)
    for row, (text, complete) in enumerate(zip(rollout.texts, rollout.has_eos, strict=True)):
        assert "e" not in trainer.tokenizer.decode(rollout.response_ids(row)[:-1])
        assert complete or "e" not in text
    assert metrics["response/eos_rate"] == pytest.approx(rollout.has_eos.float().mean().item())
    assert metrics["policy/ratio_first_minibatch"] == pytest.approx(1.0, abs=1e-6)


def test_an_empty_stop_string_is_refused():
    with pytest.raises(UserError, match=r"sampling\.stop holds an empty string"):
        SamplingConfig(stop=[""])


def test_prompts_from_an_iterator_and_their_columns_reach_the_reward(tiny_models, pairs, tmp_path):
    rows = ({"prompt": f"Show {n}.", "number": n} for n in itertools.count())
    config = make_config(
        tiny_models["gpt2"],
        pairs,
        output_dir=str(tmp_path / "run"),
        rewards=[RewardSpec(path="test_hooks.the_number")],
        num_updates=2,
    )
    run_ppo(config, prompts=rows)
    samples = read_jsonl(tmp_path / "run" / "samples.jsonl")
    assert [(row["prompt"], row["score"]) for row in samples] == [
        (f"Show {n}.", float(n)) for n in (0, 0, 1, 1, 4, 4, 5, 5)
    ]


def the_number(prompts, completions, number, **columns):
    return number


def test_a_resumed_run_skips_the_prompts_that_it_has_used(tiny_models, pairs, tmp_path):
    config = make_config(
        tiny_models["gpt2"],
        pairs,
        output_dir=str(tmp_path / "run"),
        num_updates=3,
        checkpoint=dataclasses.replace(make_config("x", pairs).checkpoint, save_steps=1),
    )

    def rows():
        return ({"prompt": f"Show {n}."} for n in itertools.count())

    with pytest.raises(RuntimeError):
        run_ppo(config, prompts=rows(), callbacks=[Crash(2)])
    run_ppo(config, prompts=rows())
    prompts = [row["prompt"] for row in read_jsonl(tmp_path / "run" / "samples.jsonl")]
    assert prompts[::2] == [f"Show {n}." for n in (0, 1, 4, 5, 8, 9)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "Only one."}], "the prompt iterator ended after 1 prompts"),
        ([{"prompt": "Good."}, {"problem": "Bad."}], "prompt 2: prompt is missing or empty"),
        ([{"prompt": "word " * 90}], "prompt 1"),
    ],
)
def test_bad_iterators_get_one_line(tiny_models, pairs, rows, message):
    config = make_config(tiny_models["gpt2"], pairs)
    trainer = build_trainer(config, RewardSum.from_specs(config.rewards), prompts=rows)
    with pytest.raises(UserError, match=message):
        trainer.update()


second_batch_is_sampled = threading.Event()


def waits_for_the_second_batch(prompts, completions, **columns):
    """1 once a second batch is being sampled, 0 if that does not happen while this one is scored."""
    return [float(second_batch_is_sampled.wait(20))] * len(prompts)


def test_a_batch_is_scored_while_the_next_is_sampled(tiny_models, pairs):
    trainer = make_trainer(
        tiny_models,
        pairs,
        rollout_batch_size=3,
        rewards=[RewardSpec(path="test_hooks.waits_for_the_second_batch"), RewardSpec(path="tiny_runs.count_e")],
    )
    sample, sizes = trainer.sample, []

    def notice(prompts):
        sizes.append(len(prompts))
        if len(sizes) == 2:
            second_batch_is_sampled.set()
        return sample(prompts)

    trainer.sample = notice
    rollout, scores, _ = trainer.update()
    assert sizes == [3, 3, 2]
    assert scores.components["waits_for_the_second_batch"] == [1.0] * 8
    assert scores.components["count_e"] == [text.count("e") / max(1, len(text)) for text in rollout.texts]


class Recorder(Callback):
    """Notes the order of the phases, halves the scores and drops the advantage of the first token."""

    def __init__(self) -> None:
        self.phases: list[str] = []

    def after_sampling(self, trainer, responses):
        self.phases.append(f"sampled {len(responses)}")

    def after_scoring(self, trainer, responses, scores):
        self.phases.append("scored")
        return Scores([total / 2 for total in scores.total], scores.components, scores.spans)

    def after_advantages(self, trainer, rollout):
        self.phases.append("advantages")
        self.before = parameters(trainer)
        advantages = rollout.advantages.clone()
        advantages[:, 0] = 0.0
        return dataclasses.replace(rollout, advantages=advantages)

    def after_update(self, trainer, update):
        self.phases.append(f"update {trainer.updates_done}")
        self.moved = not torch.equal(self.before, parameters(trainer))


def test_callbacks_see_every_phase_and_may_replace_what_they_see(tiny_models, pairs):
    trainer = make_trainer(tiny_models, pairs)
    recorder = Recorder()
    trainer.callbacks = [recorder]
    rollout, scores, _ = trainer.update()
    assert recorder.phases == ["sampled 8", "scored", "advantages", "update 1"]
    assert recorder.moved
    torch.testing.assert_close(rollout.scores, torch.tensor(scores.total))
    assert rollout.scores.tolist() == pytest.approx([s / 2 for s in scores.components["count_e"]])
    assert (rollout.advantages[:, 0] == 0).all()


@pytest.mark.parametrize(
    ("normalization", "expected"), [("scale", [1.0, 3.0]), ("standardize", [-1.0, 1.0]), ("none", [10.0, 30.0])]
)
def test_scores_are_normalized_by_the_moments_of_all_scores_so_far(tiny_models, pairs, normalization, expected):
    """10 and 30 have mean 20 and standard deviation 10."""
    trainer = make_trainer(
        tiny_models, pairs, rewards=[RewardSpec(path="test_hooks.ten_per_update")], score_normalization=normalization
    )
    assert trainer.update().rollout.scores[:2].tolist() == pytest.approx(expected)
    assert trainer.score_moments == (RunningMoments() if normalization == "none" else RunningMoments(8, 20.0, 100.0))


def test_normalization_comes_before_clipping_and_the_eos_penalty_after_both(tiny_models, pairs):
    trainer = make_trainer(
        tiny_models,
        pairs,
        rewards=[RewardSpec(path="test_hooks.ten_per_update")],
        score_normalization="scale",
        score_clip=2.0,
        missing_eos_penalty=5.0,
    )
    rollout = trainer.update().rollout
    expected = torch.tensor([1.0, 2.0] * 4) - 5.0 * (~rollout.has_eos)
    torch.testing.assert_close(rollout.scores, expected)


def test_whitened_rewards_have_unit_variance_about_their_mean(tiny_models, pairs):
    trainer = make_trainer(tiny_models, pairs, whiten_rewards=True)
    plain = make_trainer(tiny_models, pairs).update().rollout
    rollout = trainer.update().rollout
    rewards, before = rollout.rewards[rollout.response_mask], plain.rewards[plain.response_mask]
    assert rewards.var(unbiased=False).item() == pytest.approx(1.0, rel=1e-4)
    assert rewards.mean().item() == pytest.approx(before.mean().item(), abs=1e-6)


def test_inspected_rollouts(tiny_models, pairs, tmp_path):
    """The same prompts at updates 1, 2 and 3 (the last), with the log-probabilities before and after each."""
    config = make_config(
        tiny_models["gpt2"],
        pairs,
        output_dir=str(tmp_path / "run"),
        num_updates=3,
        inspect=InspectConfig(prompts=2, every=2),
    )
    plain = dataclasses.replace(config, output_dir=str(tmp_path / "plain"), inspect=InspectConfig(prompts=0))
    run_ppo(config)
    run_ppo(plain)
    assert not (tmp_path / "plain" / "rollouts").exists()
    metrics = [
        [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_jsonl(folder / "metrics.jsonl")]
        for folder in (tmp_path / "run", tmp_path / "plain")
    ]
    assert metrics[0] == metrics[1]  # looking changes nothing
    folders = sorted((tmp_path / "run" / "rollouts").iterdir())
    assert [folder.name for folder in folders] == ["000001", "000002", "000003"]
    prompts = [text.split("\n")[0] for text in TEXTS[:2]]
    for folder in folders:
        rows, rollout = read_jsonl(folder / "rows.jsonl"), load_rollout(folder)
        assert [row["prompt"] for row in rows] == [prompts[0], prompts[0], prompts[1], prompts[1]]
        assert ["".join(row["tokens"]) for row in rows] != [
            row["response"] for row in rows
        ] or rollout.has_eos.sum() == 0
        assert [row["rewards"]["count_e"] for row in rows] == pytest.approx(rollout.scores.tolist())
        assert all("count_e (weight 1)" in row["explanation"] for row in rows)
        assert [len(row["tokens"]) for row in rows] == rollout.lengths.tolist()


def test_new_logprobs_are_those_of_the_updated_policy(tiny_models, pairs, tmp_path):
    from safetensors.torch import load_file

    from rlhf.ppo.inspection import Inspection

    trainer = make_trainer(tiny_models, pairs)
    inspection = Inspection(trainer, tmp_path)
    inspection.before_update(1)
    trainer.update()
    inspection.after_update()
    rollout = load_rollout(tmp_path / "000001")
    stored = load_file(tmp_path / "000001" / "rollout.safetensors")["new_logprobs"]
    now = policy_outputs(trainer.policy, rollout, 1.0, 4, with_values=False, with_entropy=False).logprobs
    torch.testing.assert_close(stored, now)
    assert not torch.allclose(stored, rollout.old_logprobs)


def test_only_the_first_rank_inspects(tiny_models, pairs, tmp_path):
    """A reward that is paid for is asked once, however many processes there are."""
    trainer = make_trainer(tiny_models, pairs, inspect=InspectConfig(prompts=1))
    for index in range(2):
        trainer.ranks = Ranks(index, 2)
        inspection = Inspection(trainer, tmp_path)
        inspection.before_update(1)
        assert (inspection.pending is not None) == (index == 0)
