"""What an evaluation says of each response, and that no reward hides behind a name of ours."""

import json

import pytest
import torch
from tiny_policy import make_policy

from rlhf.config import DataConfig, ModelConfig, SamplingConfig
from rlhf.data.examples import load_examples, tokenize
from rlhf.evaluation.measure import measure
from rlhf.maths.kl import kl_from_logits
from rlhf.maths.tensors import entropy_from_logits
from rlhf.models.tokenizer import load_tokenizer
from rlhf.rewards import RewardError, RewardSpec, RewardSum
from rlhf.rewards.scores import WeightedReward
from rlhf.stages.evaluate import policy_of


class Counting:
    """Letters per response; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, prompts, completions, **columns):
        self.calls += 1
        return [float(len(text)) if text else None for text in completions]

    def explain(self, prompt, completion, **columns):
        return f"{prompt[:4]}:\n{len(completion)} letters, {columns['hint']}"


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_kl_and_entropy_are_those_of_the_distribution_that_is_sampled(tiny_models, tmp_path, temperature):
    """The exact KL of the sampled distributions, token by token; that at temperature 1 is another number."""
    policy = make_policy(tiny_models["gpt2"], "detached")
    tokenizer = load_tokenizer(str(tiny_models["gpt2"]))
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "Show"}\n')
    prompts = tokenize(load_examples(str(file), "train"), tokenizer, DataConfig(train=str(file)), 96)
    sampling = SamplingConfig(max_new_tokens=1, temperature=temperature)
    rewards = RewardSum([WeightedReward("letters", lambda prompts, completions, **_: [0.0] * len(prompts))])
    means = measure(policy, tokenizer, prompts, rewards, sampling, num_generations=4000, batch_size=1000, seed=0).means
    ids = torch.tensor([prompts[0].prompt_ids])
    with torch.no_grad():
        now = policy.language_model(ids).logits[0, -1]
        with policy.reference():
            base = policy.language_model(ids).logits[0, -1]
    exact = {t: kl_from_logits(now / t, base / t).item() for t in (temperature, 1.0)}
    assert means["kl"] == pytest.approx(exact[temperature], rel=0.15)
    assert means["kl"] != pytest.approx(exact[1.0], rel=0.3)
    assert means["entropy"] == pytest.approx(entropy_from_logits(now / temperature).item(), rel=1e-4)


@pytest.mark.parametrize("changed", [False, True])
def test_responses_of_a_plain_model_are_read_once(tiny_models, tmp_path, monkeypatch, changed):
    """It is its own reference. One adapter that does something, and the reference is read too."""
    policy, tokenizer = policy_of(ModelConfig(name_or_path=str(tiny_models["gpt2"])))
    if changed:
        list(policy.adapters())[-1].data.fill_(0.5)
    read = []
    policy.register_forward_pre_hook(lambda *_: read.append(1))
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "Show"}\n{"prompt": "Show it"}\n')
    prompts = tokenize(load_examples(str(file), "train"), tokenizer, DataConfig(train=str(file)), 96)
    sampling, rewards = (
        SamplingConfig(max_new_tokens=6),
        RewardSum([WeightedReward("none", lambda prompts, completions, **_: [0.0] * len(prompts))]),
    )
    means = measure(policy, tokenizer, prompts, rewards, sampling, num_generations=2, batch_size=2, seed=0).means
    assert len(read) == (4 if changed else 2)
    assert (means["kl"] != 0) == changed
    assert means["entropy"] > 0


def measured(tiny_models, tmp_path, rewards: RewardSum):
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"Show {n}", "hint": f"hint {n}"}) + "\n" for n in range(3)))
    policy, tokenizer = policy_of(ModelConfig(name_or_path=str(tiny_models["gpt2"])))
    data = DataConfig(train=str(file))
    prompts = tokenize(load_examples(data.train, "train"), tokenizer, data, 96)
    sampling = SamplingConfig(max_new_tokens=6)
    return measure(policy, tokenizer, prompts, rewards, sampling, num_generations=2, batch_size=4, seed=0)


def test_every_response_is_explained_without_being_scored_again(tiny_models, tmp_path):
    letters = Counting()
    rewards = RewardSum(
        [WeightedReward("letters", letters, 0.5), *RewardSum.from_specs([RewardSpec(path="repetition")]).rewards]
    )
    rows = measured(tiny_models, tmp_path, rewards).rows
    assert letters.calls == 2  # six responses in batches of four
    for number, row in enumerate(rows):
        size = len(row["response"])
        first, second, third, *_, last = row["explanation"].splitlines()
        assert first == f"letters (weight 0.5): {'-' if size == 0 else f'{size:.4f}'}"
        assert (second, third) == ("  Show:", f"  {size} letters, hint {number // 2}")
        assert last == f"total: {row['reward']:.4f}"


def test_a_reward_that_is_called_like_a_measurement_keeps_a_place_of_its_own(tiny_models, tmp_path):
    rewards = RewardSum.from_specs([RewardSpec(path="length", args={"maximum": 3}), RewardSpec(path="repetition")])
    measurement = measured(tiny_models, tmp_path, rewards)
    tokens = [row["length"] for row in measurement.rows]
    assert measurement.means["length"] == sum(tokens) / 6
    assert all(isinstance(length, int) for length in tokens)
    scores = [row["reward/length"] + row["repetition"] for row in measurement.rows]
    assert scores == pytest.approx([row["reward"] for row in measurement.rows])
    assert measurement.means["reward/length"] == pytest.approx(
        torch.tensor([row["reward/length"] for row in measurement.rows]).mean().item()
    )
    assert "explanation" not in measurement.means


def test_an_explanation_that_fails_names_the_reward(tiny_models, tmp_path):
    class Broken(Counting):
        def explain(self, prompt, completion, **columns):
            raise KeyError("lost\nwords")

    with pytest.raises(RewardError, match=r"reward 'odd' cannot explain its score \(KeyError: 'lost\\nwords'\)"):
        measured(tiny_models, tmp_path, RewardSum([WeightedReward("odd", Broken())]))
