"""Credit assignment by hand: from scores of whole responses to rewards, advantages and returns of tokens."""

import dataclasses

import pytest
import torch
from tiny_data import write_pairs
from tiny_runs import make_trainer

from rlhf.maths.tensors import RunningMoments
from rlhf.ppo.credit import advantages_and_returns, assign_credit, final_scores, with_values
from rlhf.ppo.rollout import Experience
from rlhf.rewards import Scores, Span

TOTALS = [0.0, 2.0, 4.0, 10.0]  # mean 4, variance (16 + 4 + 0 + 36) / 4 = 14
HAS_EOS = torch.tensor([True, True, False, True])


@pytest.fixture(scope="module")
def trainer(tiny_models, tmp_path_factory):
    return make_trainer(tiny_models, write_pairs(tmp_path_factory.mktemp("data")), kl_estimator="k1")


@pytest.fixture(scope="module")
def experience(trainer) -> Experience:
    """Eight responses, four prompts by two, whose policy and reference differ, and whose lengths do."""
    trainer.update()
    rollout = trainer.update().rollout
    full = {field.name: getattr(rollout, field.name) for field in dataclasses.fields(Experience)}
    lengths = torch.tensor([1, 10, 2, 10, 3, 8, 4, 10]).minimum(rollout.lengths)
    mask = torch.arange(rollout.response_mask.shape[1]) < lengths.unsqueeze(-1)
    per_token = {
        name: torch.where(mask, x, 0.0) for name, x in full.items() if torch.is_tensor(x) and x.dtype.is_floating_point
    }
    return Experience(**full | per_token | {"response_mask": mask})


def scored(totals, spans=None) -> Scores:
    return Scores(totals, {"hand": totals}, spans or [[] for _ in totals])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, TOTALS),
        ({"score_normalization": "scale"}, [x / 14**0.5 for x in TOTALS]),
        ({"score_normalization": "standardize"}, [(x - 4) / 14**0.5 for x in TOTALS]),
        ({"score_clip": 3.0}, [0.0, 2.0, 3.0, 3.0]),
        ({"score_normalization": "standardize", "score_clip": 1.0}, [-1.0, -2 / 14**0.5, 0.0, 1.0]),
        ({"missing_eos_penalty": 0.5}, [0.0, 2.0, 3.5, 10.0]),
        ({"missing_eos_penalty": 5.0, "score_clip": 3.0}, [0.0, 2.0, -2.0, 3.0]),  # the penalty is not clipped
    ],
)
def test_final_scores(trainer, settings, expected):
    moments = RunningMoments()
    scores = final_scores(dataclasses.replace(trainer.config, **settings), scored(TOTALS), HAS_EOS, moments)
    torch.testing.assert_close(scores, torch.tensor(expected))
    assert moments.count == (4 if "score_normalization" in settings else 0)


def test_scores_are_normalized_by_all_that_came_before(trainer):
    config, moments = dataclasses.replace(trainer.config, score_normalization="standardize"), RunningMoments()
    final_scores(config, scored([1.0, 1.0]), HAS_EOS[:2], moments)
    second = final_scores(config, scored([3.0, 7.0]), HAS_EOS[:2], moments)  # of 1, 1, 3, 7: mean 3, variance 6
    torch.testing.assert_close(second, torch.tensor([0.0, 4 / 6**0.5]))


def test_rewards_are_score_spans_and_kl_penalty(trainer, experience):
    scores = torch.arange(8.0)
    spans = [[] for _ in range(8)]
    row = next(row for row in (1, 3, 7) if len(experience.texts[row]) > 3)  # those that were not cut
    spans[row] = [Span(0, len(experience.texts[row]), -0.6)]
    rollout = assign_credit(trainer.config, experience, scores, scored([0.0] * 8, spans), 0.3, trainer.tokenizer)
    kl = experience.old_logprobs - experience.ref_logprobs
    expected = torch.where(experience.response_mask, -0.3 * kl, 0.0)
    for response, length in enumerate(experience.lengths.tolist()):
        expected[response, length - 1] += scores[response]
    difference = rollout.rewards - expected
    assert float(difference[row].sum()) == pytest.approx(-0.6, abs=1e-5)
    assert float(difference[row].min()) < -1e-3
    difference[row] = 0
    assert float(difference.abs().max()) < 1e-5
    assert float(kl.abs().max()) > 1e-3
    torch.testing.assert_close(rollout.kl, torch.where(experience.response_mask, kl, 0.0))
    assert torch.equal(rollout.scores, scores)


def test_whitened_rewards_keep_their_mean(trainer, experience):
    config = dataclasses.replace(trainer.config, whiten_rewards=True)
    scores = torch.arange(8.0)
    plain = assign_credit(trainer.config, experience, scores, scored([0.0] * 8), 0.3, trainer.tokenizer)
    whitened = assign_credit(config, experience, scores, scored([0.0] * 8), 0.3, trainer.tokenizer)
    before, after = (rollout.rewards[experience.response_mask] for rollout in (plain, whitened))
    expected = (before - before.mean()) / before.var(unbiased=False).sqrt() + before.mean()
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-5)


MASK = torch.tensor([[True, True, True], [True, False, False], [True, True, False], [True, True, True]])
REWARDS = torch.tensor([[0.0, 0.5, 1.0], [3.0, 0.0, 0.0], [-1.0, 2.0, 0.0], [0.25, 0.25, 5.0]])  # sums 1.5, 3, 1, 5.5
VALUES = torch.tensor([[0.5, 1.0, 2.0], [1.0, 0.0, 0.0], [0.0, 4.0, 0.0], [1.0, 1.0, 1.0]])


def plain_config(trainer, **settings):
    return dataclasses.replace(trainer.config, **({"whiten_advantages": False} | settings))


def test_gae_with_the_settings_of_the_config(trainer):
    advantages, returns = advantages_and_returns(
        plain_config(trainer, gamma=0.9, gae_lambda=0.5), REWARDS, VALUES, MASK
    )
    # Row 0 by hand, from the back: 1 - 2 = -1; 0.5 + 0.9 * 2 - 1 + 0.45 * -1 = 0.85; 0.9 * 1 - 0.5 + 0.45 * 0.85
    torch.testing.assert_close(advantages[0], torch.tensor([0.7825, 0.85, -1.0]))
    torch.testing.assert_close(advantages[1], torch.tensor([2.0, 0.0, 0.0]))
    torch.testing.assert_close(returns, torch.where(MASK, advantages + VALUES, 0.0))


@pytest.mark.parametrize(
    ("advantage", "expected"),
    [
        ("reward_per_token", [1.5 / 3, 3.0 / 1, 1.0 / 2, 5.5 / 3]),
        ("rloo", [-1.5, 1.5, -4.5, 4.5]),  # two samples of a prompt: against the other one
        ("group_relative", [-0.75 / (1.5 / 2**0.5 + 1e-4), 0.75 / (1.5 / 2**0.5 + 1e-4), -2.25 / (4.5 / 2**0.5 + 1e-4),
                            2.25 / (4.5 / 2**0.5 + 1e-4)]),
    ],
)  # fmt: skip
def test_advantages_without_a_critic(trainer, advantage, expected):
    config = plain_config(trainer, advantage=advantage, num_generations=2)
    advantages, returns = advantages_and_returns(config, REWARDS, VALUES, MASK)
    torch.testing.assert_close(advantages, torch.where(MASK, torch.tensor(expected).unsqueeze(-1), 0.0))
    assert not returns.any()


def test_four_samples_of_a_prompt_are_one_group(trainer):
    config = plain_config(trainer, advantage="rloo", num_generations=4)
    advantages, _ = advantages_and_returns(config, REWARDS, VALUES, MASK)
    torch.testing.assert_close(advantages[:, 0], torch.tensor([1.5 - 9.5 / 3, 3 - 8 / 3, 1 - 10 / 3, 5.5 - 5.5 / 3]))


@pytest.mark.parametrize("advantage", ["gae", "rloo"])
def test_whitening_is_over_the_tokens_and_leaves_the_returns(trainer, advantage):
    settings = {"advantage": advantage, "num_generations": 2}
    raw, returns = advantages_and_returns(plain_config(trainer, **settings), REWARDS, VALUES, MASK)
    config = plain_config(trainer, **settings, whiten_advantages=True)
    white, same_returns = advantages_and_returns(config, REWARDS, VALUES, MASK)
    tokens = raw[MASK]
    expected = torch.zeros_like(raw)
    expected[MASK] = (tokens - tokens.mean()) / tokens.var(unbiased=False).sqrt()
    torch.testing.assert_close(white, expected)
    assert torch.equal(returns, same_returns)


def test_a_critic_that_says_the_same_everywhere(experience):
    values = with_values(experience, 0.75).old_values
    assert torch.equal(values, 0.75 * experience.response_mask)
