"""A turn that reads only what is new in it: the tokens and log-probabilities of one that reads all again."""

import dataclasses

import pytest
import torch
from families import FAMILIES, build
from tiny_policy import make_policy
from tiny_runs import make_config

import rlhf.sampling.batch
from rlhf.config import EnvironmentSpec, LoraConfig, SamplingConfig
from rlhf.environments.returns import reward_fn
from rlhf.models.tokenizer import load_tokenizer
from rlhf.policy.policy import Policy
from rlhf.sampling.decode import sample
from rlhf.sampling.responses import continued
from rlhf.sampling.trial import continues
from rlhf.sampling.turn_cache import TurnCache
from rlhf.stages.ppo import build_trainer

PROMPTS = [[3, 4, 5, 6, 7, 8, 9], [10, 11], [10, 11], [12, 13, 14, 15], [16]]
ANSWERS = [[20, 21, 22], [23], [24, 25, 26, 27, 28, 29], [30, 31], [32, 33, 34]]
"""What the environment says to each row."""
LIMITS = [6, 9, 2, 8, 1]
STAYS = [[0, 1, 2, 3, 4], [0, 2, 3, 4], [2, 4]]
"""The rows that are still there in each of three turns."""
MODELS = ["GPT-2", "GPT-Neo", "BLOOM", "Llama", "Mistral", "Gemma 2", "DeepSeek-V3"]


def conversations(model, turns):
    """Three turns at temperature 1, of which each row says another number of tokens; and the columns of each pass."""
    generator, eos = torch.Generator().manual_seed(0), 7
    rows, said, widths = [list(prompt) for prompt in PROMPTS], [], []
    handle = model.base_model.register_forward_pre_hook(
        lambda _, args, given: widths.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    for here in STAYS:
        limits = [LIMITS[row] for row in here]
        going_on = [rows[row] for row in here]
        sampled = sample(model, going_on, SamplingConfig(), eos, generator, limits=limits, turns=turns)
        for row, ids, own, logprobs in zip(here, *sampled[:2], sampled.logprobs, strict=True):
            said.append((row, ids[own].tolist(), logprobs[own]))
            rows[row] += [*ids[own].tolist(), *ANSWERS[row]]
    handle.remove()
    return said, [width for width in widths if width > 1]


@pytest.mark.parametrize("name", MODELS)
def test_tokens_and_log_probabilities_are_those_of_reading_all_again(name):
    """Rows say and hear different numbers of tokens, end in different turns, and two of them begin alike."""
    model = build(FAMILIES[name]).eval()
    again, all_widths = conversations(model, None)
    cached, widths = conversations(model, TurnCache())
    assert [(row, ids) for row, ids, _ in cached] == [(row, ids) for row, ids, _ in again]
    for (*_, found), (*_, expected) in zip(cached, again, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert widths[0] == all_widths[0] == 7
    assert widths[1:] == [1 + 6, 1 + 6]  # the last sampled token, which nobody has read yet, and the longest answer
    assert min(all_widths[1:]) > 12


def test_rows_are_read_from_the_start_where_one_is_new(tiny_models):
    model = make_policy(tiny_models["gpt2"]).language_model.eval()
    turns, sampling = TurnCache(), SamplingConfig(max_new_tokens=3, temperature=0)
    sample(model, PROMPTS, sampling, 7, turns=turns)
    others = [[9, 8, 7, 6], [5]]
    found = sample(model, others, sampling, 7, turns=turns)
    assert torch.equal(found.response_ids, sample(model, others, sampling, 7).response_ids)
    repeated = sample(model, others, sampling, 7, turns=turns)  # no row is longer than what is known of it
    assert torch.equal(found.response_ids, repeated.response_ids)


def policy_on(name) -> Policy:
    policy = Policy.with_lora(build(FAMILIES[name]), LoraConfig(r=4, alpha=8), "detached")
    for _, parameter in policy.trainable:
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return policy


@pytest.mark.parametrize(
    ("name", "goes_on"), [("Mistral", True), ("BLOOM", True), ("Falcon-H1", False), ("RWKV", False)]
)
def test_only_keys_and_values_are_gone_on_from(tiny_models, name, goes_on):
    """A cache with a recurrent state, or none at all: there every turn reads all again, and nothing is kept."""
    policy, turns = policy_on(name), TurnCache()
    assert continues(policy) is goes_on
    if not goes_on:
        tokenizer, sampling = load_tokenizer(str(tiny_models["gpt2"])), SamplingConfig(max_new_tokens=2)
        continued(policy, tokenizer, sampling, torch.Generator().manual_seed(0), PROMPTS[:2], turns=turns)
        assert not turns.reads


def test_the_trial_finds_a_cache_that_would_be_wrong(tiny_models, monkeypatch):
    policy, padded_left = make_policy(tiny_models["gpt2"]), rlhf.sampling.batch.padded_left
    monkeypatch.setattr(rlhf.sampling.batch, "padded_left", lambda rows: padded_left(rows).roll(1, dims=2))
    assert not continues(policy)


@pytest.mark.parametrize("chunk", [None, 2])
def test_a_rollout_is_the_same_one(tiny_models, pairs, chunk):
    """Of the trainer, whole or in chunks, where some episodes are over before others."""
    config = make_config(
        tiny_models["gpt2"], pairs, rewards=None, environment=EnvironmentSpec(name="talkers.Echo"), kl_coef=0.0,
        sampling=SamplingConfig(max_new_tokens=4, stop=["e", "t", " ", "a", "r", "<"]), rollout_batch_size=chunk,
    )  # fmt: skip
    rollouts = []
    for goes_on in (None, False):
        trainer = build_trainer(config, reward_fn([], config.environment))
        trainer.policy.shortcuts.continues = goes_on
        rollouts.append(trainer.update().rollout)
        assert trainer.policy.shortcuts.continues is (goes_on is None)
    cached, again = rollouts
    assert len({len(episode.rewards) for episode in cached.episodes}) > 1
    assert torch.equal(cached.sequence_ids, again.sequence_ids)
    assert torch.equal(cached.response_mask, again.response_mask)
    torch.testing.assert_close(cached.sampler_logprobs, again.sampler_logprobs, rtol=0, atol=1e-5)
    assert [dataclasses.astuple(x) for x in cached.episodes] == [dataclasses.astuple(x) for x in again.episodes]
