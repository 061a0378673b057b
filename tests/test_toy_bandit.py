"""End to end: with a KL penalty PPO converges to pi_ref exp(r / beta) / Z, and to nothing else if a sign is wrong."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rlhf.toy import bandit
from rlhf.toy.bandit import LARGE_BATCH, MEANS, METHODS, REFERENCES, learn, optimal_policy, total_variation
from rlhf.toy.config import BanditConfig


def train(config: BanditConfig, references: Tensor, kl_coefs: Tensor, method: str = "PPO") -> Tensor:
    return learn(config, method, references, kl_coefs, LARGE_BATCH, config.updates).final


def test_the_closed_form_by_hand() -> None:
    reference, beta = torch.tensor([REFERENCES["favors arm 0"]]), torch.tensor([0.5])
    weights = [p * 2.718281828 ** (r / 0.5) for p, r in zip(REFERENCES["favors arm 0"], MEANS, strict=True)]
    expected = torch.tensor([[w / sum(weights) for w in weights]])
    torch.testing.assert_close(optimal_policy(reference, beta), expected)


def test_ppo_with_a_kl_penalty_converges_to_the_closed_form() -> None:
    config = BanditConfig(seeds=3)
    references, kl_coefs = bandit.settings_with_penalty(config)
    assert len(references) == 15  # three references, two of them far from uniform, and five betas
    distance = total_variation(train(config, references, kl_coefs), optimal_policy(references, kl_coefs))
    assert distance.shape == (3, 15)
    assert distance.max() < 0.02


def test_so_does_reinforce() -> None:
    config = BanditConfig(seeds=2, updates=400)
    references, kl_coefs = torch.tensor([REFERENCES["favors arm 0"]]), torch.tensor([0.3])
    final = train(config, references, kl_coefs, method=METHODS[1])
    assert total_variation(final, optimal_policy(references, kl_coefs)).max() < 0.02


def negate_first(function: Callable) -> Callable:
    """The function with its first result, or its only one, of the opposite sign."""

    def wrong(*args: object, **kwargs: object) -> object:
        result = function(*args, **kwargs)
        return (-result[0], *result[1:]) if isinstance(result, tuple) else -result

    return wrong


@pytest.mark.parametrize("name", ["kl_estimate", "kl_shaped_rewards", "gae", "clipped_policy_loss"])
def test_a_wrong_sign_anywhere_misses_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandit, name, negate_first(getattr(bandit, name)))
    references, kl_coefs = torch.tensor([REFERENCES["favors arm 0"]]), torch.tensor([0.3])
    final = train(BanditConfig(seeds=1), references, kl_coefs)
    assert total_variation(final, optimal_policy(references, kl_coefs)) > 0.1


def test_without_the_penalty_every_method_finds_the_best_arm_and_ppo_first() -> None:
    curves = bandit.compare_methods(BanditConfig(seeds=5))
    rewards = {name: (run.probabilities @ torch.tensor(MEANS)).mean((1, 2)) for name, run in curves.items()}
    assert all(reward[0] == pytest.approx(0.38) for reward in rewards.values())  # uniform play
    assert rewards["PPO"][-1] > 0.79
    plain, baseline, ppo = (rewards[name][40] for name in METHODS)  # after 320 pulls
    assert plain < baseline < ppo


def test_runs_do_not_depend_on_their_company() -> None:
    settings = torch.tensor(list(REFERENCES.values())), torch.tensor([0.1, 0.2, 0.5])
    short = BanditConfig(seed=0, seeds=3, updates=10)
    together = train(short, *settings)
    alone = train(BanditConfig(seed=2, seeds=1, updates=10), *settings)
    torch.testing.assert_close(together[2:], alone)
    assert torch.equal(together, train(short, *settings))  # and equal seeds are equal to the last bit
