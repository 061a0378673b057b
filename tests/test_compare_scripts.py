"""The comparison scripts: what TRL is given is what we train on, and what is compared differs in what it says."""

import json
from dataclasses import fields, replace
from pathlib import Path

import compare_algorithms
import comparison
import pytest
import torch
import trl_ppo
from tiny_runs import make_config

from rlhf.config import DataConfig, PPOConfig
from rlhf.data.examples import load_examples, tokenize
from rlhf.models.tokenizer import load_tokenizer
from rlhf.policy.files import load_policy
from rlhf.rewards import RewardSpec, RewardSum

RESPONSES = ["export default function A() {}", "<p>\n</p>", ""]


@pytest.fixture
def ppo(tiny_models, pairs, tmp_path) -> PPOConfig:
    config = make_config(
        tiny_models["gpt2"],
        pairs,
        output_dir=str(tmp_path / "trl"),
        rewards=[RewardSpec(path="length", args={"minimum": 40, "maximum": 50})],
        num_updates=2,
        batch_size=4,
        num_generations=1,
        mini_batch_size=2,
    )
    return replace(config, data=DataConfig(train=pairs, as_chat=True))  # a prompt ends with its line


def test_trl_reads_our_scores(ppo, monkeypatch) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.utils import get_reward

    tokenizer = load_tokenizer(str(ppo.model.name_or_path))
    prompts = tokenize(load_examples(ppo.data.train, "train"), tokenizer, ppo.data, 96)
    rewards = RewardSum.from_specs(ppo.rewards)
    reward_model = trl_ppo.PythonReward(rewards, tokenizer, prompts)
    chosen = [prompts[5], prompts[0], prompts[3]]
    responses = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in RESPONSES]
    width, length = max(len(p.prompt_ids) for p in chosen), max(map(len, responses)) + 1
    pad = tokenizer.pad_token_id
    rows = [
        [pad] * (width - len(p.prompt_ids)) + p.prompt_ids + r + [pad] * (length - len(r))
        for p, r in zip(chosen, responses, strict=True)
    ]
    _, scores, _ = get_reward(reward_model, torch.tensor(rows), pad, width)
    assert scores.tolist() == pytest.approx(rewards([p.example.prompt for p in chosen], RESPONSES, {}).total)
    assert len(set(scores.tolist())) == 3
    assert reward_model.lengths == [pytest.approx(sum(map(len, responses)) / 3)]


def test_trl_trains_and_its_policy_becomes_ours(ppo, monkeypatch) -> None:
    trained = {}

    def keep(*arguments) -> object:
        trained["policy"] = arguments[2]
        trained["trainer"] = make(*arguments)
        return trained["trainer"]

    make = trl_ppo.trl_trainer
    monkeypatch.setattr(trl_ppo, "trl_trainer", keep)
    folder = Path(ppo.output_dir) / "policy"
    trl_ppo.train_with_trl(ppo, (1e-2, 1e-3), folder)
    steps = {int(state["step"]) for state in trained["trainer"].optimizer.state.values()}
    assert steps == {2 * 2 * 2}  # updates x epochs x minibatches: none of them accumulated into one
    rows = [json.loads(line) for line in (folder.parent / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[0]["objective/kl"] == pytest.approx(0, abs=1e-4)
    assert abs(rows[1]["objective/kl"]) > 1e-3  # an estimate, of either sign
    assert all(1 <= row["response/length"] <= ppo.sampling.max_new_tokens for row in rows)
    ids = torch.tensor([[5, 6, 7, 8]])
    ours = load_policy(folder)(ids, torch.tensor([1]), torch.ones(1, 3, dtype=torch.bool)).logprobs
    theirs = trained["policy"](ids).logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("study", compare_algorithms.STUDIES)
def test_variants_of_a_study_differ_in_nothing_else(study) -> None:
    expected = {
        "critic": {"critic"},
        "KL coefficient": {"kl_coef", "adaptive_kl_target", "adaptive_kl_horizon"},
        "critic, equal processor time": {"critic", "num_updates"},
        "advantage, 4 responses per prompt": {"advantage", "learning_rate", "value_warmup"},
    }
    config, folder = comparison.from_scratch(), Path("runs")
    variants = [
        comparison.ppo_config(config, folder, "x", 1, changes) for changes in compare_algorithms.STUDIES[study].values()
    ]
    differing = {
        field.name
        for field in fields(PPOConfig)
        for variant in variants
        if getattr(variant, field.name) != getattr(variants[0], field.name)
    }
    assert differing == expected[study]
    same_responses = {variant.updates * variant.batch_size for variant in variants} == {24 * 64}
    assert same_responses == ("time" not in study)


def test_cells_and_curves() -> None:
    assert comparison.cell([1.0, 2.0, 6.0]) == "3.00 ± 2.65"  # sqrt((4 + 1 + 9) / 2)
    assert comparison.cell([1.25], digits=1) == "1.2"
    run = comparison.Run({}, [{"x": value} for value in (4.0, 0.0, 2.0, 2.0, 6.0)], {})
    assert run.curve("x") == [4.0, 2.0, 2.0, 2.0, 2.5]  # means of 1, 2, 3, then always 4 updates
