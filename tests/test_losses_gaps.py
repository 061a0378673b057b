"""Advantages and rewards where the mask of a response has gaps."""

import pytest
import torch
from gappy import GAPPY, LAST

from rlhf.maths.advantages import discounted_sum, gae, kl_shaped_rewards
from rlhf.maths.tensors import zero_outside


def slow_gae(rewards, values, mask, gamma, gae_lambda):
    """One sequence at a time, over a list of the tokens that the policy chose."""
    advantages, returns = torch.zeros_like(rewards), torch.zeros_like(rewards)
    for row in range(len(mask)):
        after = value_after = 0.0
        for t in reversed([t for t in range(mask.shape[1]) if mask[row, t]]):
            after = float(rewards[row, t] + gamma * value_after - values[row, t]) + gamma * gae_lambda * after
            value_after = float(values[row, t])
            advantages[row, t], returns[row, t] = after, after + value_after
    return advantages, returns


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (0.99, 0.0)])
def test_gae_takes_no_time_in_a_gap(gamma, gae_lambda):
    torch.manual_seed(0)
    rewards, values = torch.randn(2, 5, 7, dtype=torch.float64)
    rewards[~GAPPY], values[~GAPPY] = torch.nan, torch.inf
    for ours, slow in zip(
        gae(rewards, values, GAPPY, gamma, gae_lambda), slow_gae(rewards, values, GAPPY, gamma, gae_lambda), strict=True
    ):
        torch.testing.assert_close(ours, slow, rtol=0, atol=1e-12)


def test_masks_without_gaps_keep_every_digit():
    torch.manual_seed(0)
    rewards, values = torch.randn(2, 64, 50)
    mask = torch.arange(50) < torch.randint(1, 51, (64, 1))
    r, v = zero_outside(rewards, mask), zero_outside(values, mask)
    plain = zero_outside(discounted_sum(r + 0.99 * torch.nn.functional.pad(v[:, 1:], (0, 1)) - v, 0.99 * 0.95), mask)
    advantages, returns = gae(rewards, values, mask, 0.99, 0.95)
    assert torch.equal(advantages, plain)
    assert torch.equal(returns, plain + v)


def test_the_score_lands_on_the_last_token_that_was_chosen():
    rewards = kl_shaped_rewards(torch.arange(1.0, 6), torch.ones(5, 7), GAPPY, 0.1)
    for row, end in enumerate(LAST):
        expected = [-0.1 * float(chosen) for chosen in GAPPY[row]]
        if end:
            expected[end - 1] += row + 1
        assert rewards[row].tolist() == pytest.approx(expected)
