"""What the sampler held its tokens to be, and the weights that make up for a sampler that is not the policy."""

import dataclasses
import math

import pytest
import torch
from tiny_runs import make_config, make_trainer

from rlhf.config import ModelConfig, SamplingConfig
from rlhf.errors import UserError
from rlhf.rewards import RewardSum
from rlhf.stages.ppo import build_trainer

LN = math.log


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_sampler_says_how_probable_its_tokens_were(tiny_models, pairs, architecture):
    """Of rows that end at different steps, at a temperature; in float32 they are the policy's own numbers."""
    sampling = SamplingConfig(max_new_tokens=40, temperature=1.5)
    trainer = make_trainer(tiny_models, pairs, architecture, sampling=sampling, batch_size=16, mini_batch_size=16)
    trainer.policy.language_model.generation_config.eos_token_id = list(range(30))  # some of them come up
    trainer.update()  # adapters that matter are merged in
    rollout, _, metrics = trainer.update()
    assert len(set(rollout.lengths.tolist())) > 3
    torch.testing.assert_close(rollout.sampler_logprobs, rollout.old_logprobs, rtol=0, atol=1e-4)
    assert metrics["sampling/kl"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["sampling/ratio_max"] == pytest.approx(1.0, abs=1e-4)


def test_in_bfloat16_the_sampler_is_another_policy_and_the_metrics_say_how_far(tiny_models, pairs):
    config = make_config(tiny_models["llama"], pairs)
    config = dataclasses.replace(config, model=ModelConfig(name_or_path=str(tiny_models["llama"]), dtype="bfloat16"))
    trainer = build_trainer(config, RewardSum.from_specs(config.rewards))
    trainer.update()
    rollout, _, metrics = trainer.update()
    ours = (rollout.old_logprobs - rollout.sampler_logprobs)[rollout.response_mask]
    assert ours.abs().max() > 1e-3
    assert metrics["sampling/kl"] == pytest.approx(-ours.mean().item(), rel=1e-4)
    assert metrics["sampling/ratio_max"] == pytest.approx(ours.exp().max().item(), rel=1e-5)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_the_gradient_of_the_policy_is_weighed_and_that_of_the_critic_is_not(tiny_models, pairs, level):
    """A sampler that held every token for three times less probable: all weights are at the cap of 1.5."""
    gradients, said = {}, {}
    for correction in ("none", level):
        capped = {} if correction == "none" else {"importance_correction": correction, "importance_cap": 1.5}
        options = {"max_grad_norm": math.inf, **capped}
        trainer = make_trainer(tiny_models, pairs, **options)
        rollout = trainer.update().rollout
        trainer = make_trainer(tiny_models, pairs, **options)
        rollout = dataclasses.replace(rollout, sampler_logprobs=rollout.old_logprobs - LN(3.0))
        said[correction] = trainer.epochs.gradient(rollout, critic_only=False)
        groups = (trainer.policy.policy_parameters(), trainer.policy.critic_parameters())
        gradients[correction] = [torch.cat([p.grad.flatten() for p in group]) for group in groups]
    (policy, critic), (weighed, same) = gradients["none"], gradients[level]
    assert policy.abs().max() > 1e-4
    torch.testing.assert_close(weighed, 1.5 * policy, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(same, critic)
    assert (said[level]["sampling/weight_mean"], said[level]["sampling/truncated"]) == (1.5, 1.0)
    assert not [name for name in said["none"] if name.startswith("sampling/")]


def test_a_run_with_the_correction_in_float32_is_the_run_without(tiny_models, pairs):
    plain, corrected = (make_trainer(tiny_models, pairs, importance_correction=level) for level in ("none", "token"))
    for _ in range(2):
        first, second = plain.update(), corrected.update()
    assert second.metrics["sampling/weight_mean"] == pytest.approx(1.0, abs=1e-4)
    assert second.metrics["sampling/truncated"] == 0.0
    assert second.metrics["objective/kl"] == pytest.approx(first.metrics["objective/kl"], rel=1e-2)


def test_responses_of_unknown_probability_cannot_be_corrected(tiny_models, pairs):
    trainer = make_trainer(tiny_models, pairs, importance_correction="token")
    sample = trainer.sample
    trainer.sample = lambda prompts: dataclasses.replace(sample(prompts), sampler_logprobs=None)
    with pytest.raises(UserError, match="without sampler_logprobs"):
        trainer.update()
