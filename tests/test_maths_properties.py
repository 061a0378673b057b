"""What must hold for any input: padding, order, sampling, splitting, and gradients by finite differences."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlhf.maths.advantages import (
    discounted_sum,
    gae,
    group_relative,
    kl_shaped_rewards,
    leave_one_out,
    reward_per_token,
)
from rlhf.maths.kl import kl_estimate, kl_from_logits, target_kl_penalty
from rlhf.maths.losses import aggregate, clipped_policy_loss, clipped_value_loss, reinforce_loss
from rlhf.maths.tensors import entropy_from_logits, logprobs_from_logits, masked_moments, whiten

GARBAGE = st.sampled_from([float("nan"), float("inf"), float("-inf"), 1e30, -7.0])
settings.register_profile("maths", max_examples=30, deadline=None, derandomize=True)
settings.load_profile("maths")


@dataclass
class Inputs:
    """A ragged batch in float64; every row has at least one token."""

    logprobs: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    values: Tensor
    old_values: Tensor
    returns: Tensor
    mask: Tensor
    scores: Tensor

    def tokens(self) -> list[Tensor]:
        return [self.logprobs, self.old_logprobs, self.advantages, self.values, self.old_values, self.returns]

    def map(self, change: Callable[[Tensor], Tensor]) -> "Inputs":
        """The same change to every [B, T] tensor."""
        return Inputs(*(change(x) for x in self.tokens()), self.mask, self.scores)


@st.composite
def inputs(draw: st.DrawFn) -> Inputs:
    lengths = draw(st.lists(st.integers(1, 7), min_size=1, max_size=5))
    padding = draw(st.integers(0, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    shape = (len(lengths), max(lengths) + padding)
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(6)]
    mask = torch.arange(shape[1]) < torch.tensor(lengths).unsqueeze(1)
    scores = torch.randn(len(lengths), generator=generator, dtype=torch.float64)
    return Inputs(*tensors, mask, scores)


def everything(x: Inputs, aggregation: str = "token_mean") -> tuple[list[Tensor], list[Tensor]]:
    """Scalars (losses, statistics, moments) and token-wise results [B, T] of all the maths that takes a mask."""
    policy, policy_stats = clipped_policy_loss(
        x.logprobs, x.old_logprobs, x.advantages, x.mask, 0.2, dual_clip=3.0, aggregation=aggregation
    )
    value, value_stats = clipped_value_loss(x.values, x.old_values, x.returns, x.mask, 0.2, aggregation)
    scalars = [policy, value, *policy_stats.values(), *value_stats.values(), *masked_moments(x.advantages, x.mask)]
    scalars.append(reinforce_loss(x.logprobs, x.advantages, x.mask, aggregation))
    rewards = kl_shaped_rewards(x.scores, kl_estimate(x.logprobs, x.old_logprobs), x.mask, 0.1)
    tokens = [rewards, *gae(rewards, x.values, x.mask, 0.99, 0.9), whiten(x.advantages, x.mask)]
    return scalars, [*tokens, reward_per_token(x.scores, x.mask)]


def gradients(x: Inputs) -> list[Tensor]:
    """Of all losses with respect to what a model would produce."""
    logprobs, values = x.logprobs.clone().requires_grad_(), x.values.clone().requires_grad_()
    total = clipped_policy_loss(logprobs, x.old_logprobs, x.advantages, x.mask, 0.2, dual_clip=3.0)[0]
    total = total + clipped_value_loss(values, x.old_values, x.returns, x.mask, 0.2)[0]
    total = total + reinforce_loss(logprobs, x.advantages, x.mask)
    return list(torch.autograd.grad(total, [logprobs, values]))


@given(inputs(), GARBAGE)
def test_padding_content_never_matters(x: Inputs, garbage: float) -> None:
    dirty = x.map(lambda tensor: torch.where(x.mask, tensor, garbage))
    for aggregation in ("token_mean", "sequence_mean"):
        for clean, result in zip(everything(x, aggregation), everything(dirty, aggregation), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(clean, result, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(gradients(x), gradients(dirty), strict=True))
    assert all((tokens[~x.mask] == 0).all() for tokens in [*everything(dirty)[1], *gradients(dirty)])


@given(inputs(), st.integers(1, 5))
def test_more_padding_never_matters(x: Inputs, extra: int) -> None:
    def pad(tensor: Tensor) -> Tensor:
        return torch.nn.functional.pad(tensor, (0, extra))

    padded = x.map(pad)
    padded.mask = pad(x.mask)
    (scalars, tokens), (padded_scalars, padded_tokens) = everything(x), everything(padded)
    torch.testing.assert_close(scalars, padded_scalars)
    torch.testing.assert_close([pad(t) for t in tokens], padded_tokens)


@given(inputs(), st.randoms(use_true_random=False))
def test_permuting_rows_permutes_results(x: Inputs, random) -> None:
    rows = list(range(len(x.scores)))
    random.shuffle(rows)
    permuted = x.map(lambda tensor: tensor[rows])
    permuted.mask, permuted.scores = x.mask[rows], x.scores[rows]
    (scalars, tokens), (permuted_scalars, permuted_tokens) = everything(x), everything(permuted)
    torch.testing.assert_close(scalars, permuted_scalars)
    torch.testing.assert_close([t[rows] for t in tokens], permuted_tokens)


@given(inputs(), st.floats(0, 1), st.floats(0, 1))
def test_gae_of_a_batch_is_gae_of_each_sequence(x: Inputs, gamma: float, gae_lambda: float) -> None:
    advantages, returns = gae(x.advantages, x.values, x.mask, gamma, gae_lambda)
    for row, length in enumerate(x.mask.sum(-1)):
        r, v = x.advantages[row, :length].tolist(), [*x.values[row, :length].tolist(), 0.0]
        expected = [0.0] * (length + 1)
        for t in reversed(range(length)):
            expected[t] = r[t] + gamma * v[t + 1] - v[t] + gamma * gae_lambda * expected[t + 1]
        assert advantages[row, :length].tolist() == pytest.approx(expected[:-1], abs=1e-12)
        assert returns[row, :length].tolist() == pytest.approx(
            [a + b for a, b in zip(expected[:-1], v[:-1], strict=True)], abs=1e-12
        )


@given(inputs())
def test_gamma_and_lambda_of_one_give_reward_to_go_minus_value(x: Inputs) -> None:
    advantages, returns = gae(x.advantages, x.values, x.mask, 1.0, 1.0)
    rewards = torch.where(x.mask, x.advantages, 0.0)
    to_go = rewards.flip(-1).cumsum(-1).flip(-1)
    torch.testing.assert_close(returns[x.mask], to_go[x.mask])
    torch.testing.assert_close(advantages[x.mask], (to_go - x.values)[x.mask])


@given(inputs())
def test_lambda_of_zero_gives_the_temporal_difference(x: Inputs) -> None:
    advantages, _ = gae(x.advantages, x.values, x.mask, 0.9, 0.0)
    values = torch.where(x.mask, x.values, 0.0)
    following = torch.nn.functional.pad(values[:, 1:], (0, 1))
    torch.testing.assert_close(advantages[x.mask], (x.advantages + 0.9 * following - values)[x.mask])


@given(inputs(), st.integers(1, 5))
def test_microbatched_gradients_are_those_of_the_whole_batch(x: Inputs, pieces: int) -> None:
    weights = torch.zeros(3, dtype=torch.float64, requires_grad=True)  # a model: some function of shared weights

    def loss(rows: slice) -> Tensor:
        logprobs = x.logprobs[rows] * (1 + weights[0]) + weights[1]
        values = x.values[rows] * (1 + weights[2]) + weights[1]
        mask = x.mask[rows]
        policy, _ = clipped_policy_loss(logprobs, x.old_logprobs[rows], x.advantages[rows], mask, 0.2)
        value, _ = clipped_value_loss(values, x.old_values[rows], x.returns[rows], mask, 0.2)
        return (policy + 0.5 * value) * mask.sum() / x.mask.sum()  # the share of the tokens, as the module asks

    (whole,) = torch.autograd.grad(loss(slice(None)), weights)
    size = -(-len(x.scores) // pieces)
    parts = [
        torch.autograd.grad(loss(slice(start, start + size)), weights)[0] for start in range(0, len(x.scores), size)
    ]
    torch.testing.assert_close(sum(parts), whole)


@given(inputs())
def test_whitened_values_have_mean_zero_and_variance_one(x: Inputs) -> None:
    if x.mask.sum() > 1:
        mean, variance = masked_moments(whiten(x.advantages, x.mask), x.mask)
        assert mean.item() == pytest.approx(0, abs=1e-9)
        assert variance.item() == pytest.approx(1, abs=1e-4)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=6), st.floats(-50, 50), st.integers(1, 3))
def test_comparisons_within_a_prompt(scores: list[float], shift: float, prompts: int) -> None:
    group = torch.tensor(scores, dtype=torch.float64)
    both = torch.cat([group + shift * p for p in range(prompts)])
    for advantages in (leave_one_out(both, len(scores)), group_relative(both, len(scores))):
        by_prompt = advantages.view(prompts, -1)
        torch.testing.assert_close(by_prompt, by_prompt[:1].expand_as(by_prompt), atol=1e-6, rtol=1e-6)
        assert by_prompt.sum(-1).abs().max() < 1e-6  # what is fair to one sample is taken from the others
    centered = group - group.mean()
    torch.testing.assert_close(leave_one_out(group, len(group)), centered * len(group) / (len(group) - 1))


def test_kl_estimators_agree_with_the_exact_kl_by_sampling() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, ref_logits = (0.5 * torch.randn(8, generator=generator, dtype=torch.float64) for _ in range(2))
    exact = kl_from_logits(logits, ref_logits).item()
    ids = torch.multinomial(logits.softmax(-1), 400_000, replacement=True, generator=generator)
    logprobs, ref_logprobs = (logprobs_from_logits(x.expand(len(ids), -1), ids) for x in (logits, ref_logits))
    for estimator in ("k1", "k3"):  # unbiased: within five standard errors
        sample = kl_estimate(logprobs, ref_logprobs, estimator)
        assert abs(sample.mean().item() - exact) < 5 * sample.std().item() / len(ids) ** 0.5
    k2 = kl_estimate(logprobs, ref_logprobs, "k2").mean().item()
    d = logits.log_softmax(-1) - ref_logits.log_softmax(-1)
    k2_exact = (logits.softmax(-1) * d**2 / 2).sum().item()
    assert k2 == pytest.approx(k2_exact, rel=0.02)  # k2 is biased, by this much and no more
    assert k2_exact == pytest.approx(exact, rel=0.25)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_only_k2_has_the_gradient_of_the_kl_in_expectation(estimator) -> None:
    logits = torch.tensor([0.3, -0.5, 1.0], dtype=torch.float64, requires_grad=True)
    ref_logits = torch.tensor([0.0, 0.4, -0.2], dtype=torch.float64)
    (exact,) = torch.autograd.grad(kl_from_logits(logits, ref_logits), logits)
    estimates = kl_estimate(logits.log_softmax(-1), ref_logits.log_softmax(-1), estimator)
    # Expectation over sampled tokens: the probabilities are those of the sampler, no gradient flows through them.
    (expected,) = torch.autograd.grad((logits.softmax(-1).detach() * estimates).sum(), logits)
    assert torch.allclose(expected, exact) == (estimator == "k2")
    if estimator == "k1":
        assert expected.abs().max() < 1e-12


@given(st.integers(0, 2**31))
def test_the_exact_kl_is_positive_and_zero_only_at_home(seed: int) -> None:
    logits, ref_logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert (kl_from_logits(logits, ref_logits) > 0).all()
    assert kl_from_logits(logits, logits + 2).abs().max() < 1e-12
    assert ((entropy_from_logits(logits) > 0) & (entropy_from_logits(logits) <= torch.tensor(5.0).log())).all()


MASK = torch.tensor([[True, True, True], [True, True, False]])
GRADIENT_CHECKS = {
    "policy loss": lambda a, b, c, d: clipped_policy_loss(a, b, c, MASK, 0.2)[0],
    "policy loss, dual clip": lambda a, b, c, d: clipped_policy_loss(3 * a, b, c, MASK, 0.2, dual_clip=2.0)[0],
    "policy loss, sequence mean": lambda a, b, c, d: clipped_policy_loss(a, b, c, MASK, 0.2, None, "sequence_mean")[0],
    "value loss": lambda a, b, c, d: clipped_value_loss(a, b, c, MASK, 0.2)[0],
    "value loss, no clip": lambda a, b, c, d: clipped_value_loss(a, b, c, MASK, None)[0],
    "REINFORCE": lambda a, b, c, d: reinforce_loss(a, torch.tensor([[1.0, -2.0, 0.5], [3.0, 1.0, 9.0]]), MASK),
    "GAE": lambda a, b, c, d: gae(a, b, MASK, 0.9, 0.8),
    "discounted sum": lambda a, b, c, d: discounted_sum(a, 0.7),
    "shaped rewards": lambda a, b, c, d: kl_shaped_rewards(d, a, MASK, 0.1),
    "reward per token": lambda a, b, c, d: reward_per_token(d, MASK),
    "k1": lambda a, b, c, d: kl_estimate(a, b, "k1"),
    "k2": lambda a, b, c, d: kl_estimate(a, b, "k2"),
    "k3": lambda a, b, c, d: kl_estimate(a, b, "k3"),
    "abs": lambda a, b, c, d: kl_estimate(a, b, "abs"),
    "exact KL": lambda a, b, c, d: kl_from_logits(a, b),
    "target KL": lambda a, b, c, d: target_kl_penalty(kl_from_logits(a, b), 0.1),
    "leave one out": lambda a, b, c, d: leave_one_out(d, 2),
    "group relative": lambda a, b, c, d: group_relative(d, 2),
    "entropy": lambda a, b, c, d: entropy_from_logits(a),
    "logprobs": lambda a, b, c, d: logprobs_from_logits(a, torch.tensor([2, 0])),
    "whiten": lambda a, b, c, d: whiten(a, MASK),
    "sequence mean": lambda a, b, c, d: aggregate(a, MASK, "sequence_mean"),
}


@pytest.mark.parametrize("name", GRADIENT_CHECKS)
def test_gradients_by_finite_differences(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    tensors = [torch.randn(2, 3, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    scores = torch.randn(2, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(GRADIENT_CHECKS[name], (*tensors, scores))
