"""The contextual bandit closes the gap between random and optimal play."""

import pytest
import torch

from rlhf.toy.config import ContextualConfig
from rlhf.toy.contextual import ACTIONS, CONTEXT, Network, Test, test, train
from rlhf.toy.seeds import generators

test.__test__ = False  # type: ignore[attr-defined]  # functions of the module, not tests
Test.__test__ = False  # type: ignore[attr-defined]


def test_ppo_closes_at_least_95_percent_of_the_gap_over_ten_seeds() -> None:
    config = ContextualConfig()
    trained = train(config)
    outcome = test(config, trained)
    assert outcome.gap_closed.shape == (10,)
    assert outcome.gap_closed.mean() >= 0.95
    assert outcome.gap_closed.min() >= 0.95  # measured: 0.995 or more
    assert (outcome.gap_closed <= 1).all()
    assert trained.explained[-1].mean() > 0.9


def test_the_optimum_is_best_and_random_play_earns_nothing() -> None:
    config = ContextualConfig(updates=1, seeds=4)
    outcome = test(config, train(config))
    assert (outcome.optimal >= outcome.ppo).all()
    assert (outcome.optimal >= outcome.random).all()
    assert outcome.random.mean().item() == pytest.approx(0, abs=0.05)


def test_gap_closed_by_hand() -> None:
    outcome = Test(
        random=torch.tensor([[0.0, 2.0]]), ppo=torch.tensor([[2.0, 5.0]]), optimal=torch.tensor([[4.0, 6.0]])
    )
    assert outcome.gap_closed.item() == pytest.approx((3.5 - 1) / (5 - 1))


def test_seeds_share_a_batch_and_nothing_else() -> None:
    together, alone = train(ContextualConfig(updates=5, seeds=3)), train(ContextualConfig(updates=5, seed=1, seeds=1))
    torch.testing.assert_close(together.worlds[1:2], alone.worlds)
    torch.testing.assert_close(together.rewards[:, 1:2], alone.rewards)


def test_the_networks_of_the_seeds_are_ordinary_perceptrons() -> None:
    network = Network.create(generators(0, 2), CONTEXT, 8, ACTIONS)
    x = torch.randn(2, 3, CONTEXT)
    w1, b1, w2, b2 = network.parameters
    for seed in range(2):
        hidden = torch.relu(x[seed] @ w1[seed] + b1[seed])
        torch.testing.assert_close(network(x)[seed], hidden @ w2[seed] + b2[seed])
