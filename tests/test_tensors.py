"""Masked and running statistics, log-probabilities; expected values by hand or from the golden file."""

import json
import math
from pathlib import Path

import pytest
import torch

from rlhf.maths.tensors import (
    RunningMoments,
    at_least_float32,
    entropy_from_logits,
    explained_variance,
    logprobs_from_logits,
    masked_mean,
    masked_moments,
    masked_sum,
    scale_to_unit_variance,
    whiten,
    zero_outside,
)

GOLDEN = json.loads((Path(__file__).parent / "golden" / "ppo_maths.json").read_text())
X = torch.tensor([[1.0, 2.0, math.nan], [6.0, math.inf, -math.inf]], dtype=torch.float64)
MASK = torch.tensor([[True, True, False], [True, False, False]])  # the entries 1, 2 and 6


def f64(values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_masked_sums_and_means_ignore_even_nan_and_inf() -> None:
    assert masked_sum(X, MASK) == 9
    assert masked_sum(X, MASK, dim=-1).tolist() == [3, 6]
    assert masked_mean(X, MASK) == 3
    assert masked_mean(X, MASK, dim=-1).tolist() == [1.5, 6]
    assert zero_outside(X, MASK).tolist() == [[1, 2, 0], [6, 0, 0]]


def test_mean_over_an_empty_mask_is_zero() -> None:
    assert masked_mean(X, torch.zeros_like(MASK)) == 0
    assert masked_mean(X, torch.tensor([[True, True, False], [False] * 3]), dim=-1).tolist() == [1.5, 0]


def test_moments_are_biased_and_exact_around_a_large_mean() -> None:
    mean, variance = masked_moments(X, MASK)
    assert mean == 3
    assert variance == pytest.approx((4 + 1 + 9) / 3)  # divisor n, not n - 1
    # One pass in float32, E[x^2] - E[x]^2, would lose every digit here.
    shifted = X.float() + 10_000
    assert masked_moments(shifted, MASK)[1].item() == pytest.approx(14 / 3, rel=1e-3)
    assert all(moment == 0 for moment in masked_moments(X, torch.zeros_like(MASK)))


def test_whitening_matches_the_golden_file() -> None:
    advantages, mask = f64(GOLDEN["gae"][0]["advantages"]), torch.tensor(GOLDEN["mask"]).bool()
    torch.testing.assert_close(whiten(advantages, mask), f64(GOLDEN["whiten"]["expected"]), atol=1e-9, rtol=0)
    kept = scale_to_unit_variance(advantages, mask)
    torch.testing.assert_close(kept, f64(GOLDEN["whiten"]["keep_mean"]), atol=1e-9, rtol=0)


def test_whitening_equal_values_gives_zeros() -> None:
    assert whiten(torch.full((2, 3), 5.0), MASK).abs().max() == 0


def test_logprobs_and_entropy_match_the_golden_file() -> None:
    logits, ids = f64(GOLDEN["logits"]["logits"]), torch.tensor(GOLDEN["logits"]["token_ids"])
    expected = GOLDEN["logits"]
    torch.testing.assert_close(logprobs_from_logits(logits, ids), f64(expected["logprobs"]), atol=1e-9, rtol=0)
    torch.testing.assert_close(entropy_from_logits(logits), f64(expected["entropy"]), atol=1e-9, rtol=0)


def test_a_forbidden_token_adds_no_entropy_and_no_nan_gradient() -> None:
    logits = torch.tensor([0.0, -math.inf, 0.0], requires_grad=True)
    entropy = entropy_from_logits(logits)
    assert entropy.item() == pytest.approx(math.log(2))
    entropy.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_narrow_types_are_widened_before_they_are_summed(dtype: torch.dtype) -> None:
    assert at_least_float32(torch.ones(1, dtype=dtype)).dtype == torch.float32
    # 301 ones: bfloat16 knows 300 and 302 only.
    x, mask = torch.ones(301, dtype=dtype), torch.ones(301, dtype=torch.bool)
    total, (mean, _) = masked_sum(x, mask), masked_moments(x, mask)
    assert total.dtype == mean.dtype == torch.float32
    assert total == 301
    assert mean == 1


def test_bfloat16_is_computed_in_float32() -> None:
    x = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)).bfloat16() + 3
    mask, ids = torch.ones(4, 50, dtype=torch.bool), torch.tensor([3, 1, 4, 1])
    running = RunningMoments(count=2, mean=3.3, variance=0.7)
    functions = (
        lambda x: whiten(x, mask),
        lambda x: scale_to_unit_variance(x, mask),
        lambda x: masked_moments(x, mask)[1],
        lambda x: explained_variance(x, x.flip(-1), mask),
        lambda x: logprobs_from_logits(x, ids),
        entropy_from_logits,
        running.normalize,
        running.scale,
    )
    for function in functions:
        assert torch.equal(function(x), function(x.float()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wide_types_are_left_alone(dtype: torch.dtype) -> None:
    assert at_least_float32(torch.ones(1, dtype=dtype)).dtype == dtype


def test_explained_variance_of_perfect_constant_and_opposite_critics() -> None:
    returns, mask = torch.tensor([[1.0, 2.0, 3.0]]), torch.ones(1, 3, dtype=torch.bool)
    assert explained_variance(returns + 7, returns, mask) == 1  # a constant offset is no lack of information
    assert explained_variance(torch.zeros(1, 3), returns, mask) == 0
    assert explained_variance(-returns, returns, mask) == pytest.approx(-3)


def test_explained_variance_of_constant_returns_is_finite() -> None:
    values, mask = torch.tensor([[0.0, 2e-4]], dtype=torch.float64), torch.ones(1, 2, dtype=torch.bool)
    assert explained_variance(values, torch.ones_like(values), mask).item() == pytest.approx(0)  # 1 - 1e-8 / 1e-8


def test_running_moments_of_batches_are_those_of_all_data() -> None:
    data = torch.randn(100, generator=torch.Generator().manual_seed(0)).double() * 3 + 50
    running = RunningMoments()
    for batch in data.split([1, 40, 59]):
        running.update(batch)
    assert running.count == 100
    assert running.mean == pytest.approx(data.mean().item(), abs=1e-12)
    assert running.variance == pytest.approx(data.var(correction=0).item(), abs=1e-10)
    normalized = running.normalize(data)
    assert normalized.mean().item() == pytest.approx(0, abs=1e-9)
    assert normalized.std(correction=0).item() == pytest.approx(1, abs=1e-6)


def test_running_moments_skip_what_is_masked_and_empty_batches() -> None:
    running = RunningMoments()
    running.update(X, MASK)
    before = running.state_dict()
    running.update(torch.empty(0))
    running.update(X, torch.zeros_like(MASK))
    assert running.state_dict() == before == {"count": 3.0, "mean": 3.0, "variance": pytest.approx(14 / 3)}


def test_running_moments_survive_a_json_checkpoint_bit_for_bit() -> None:
    running = RunningMoments()
    running.update(torch.randn(17, generator=torch.Generator().manual_seed(1)))
    restored = RunningMoments()
    restored.load_state_dict(json.loads(json.dumps(running.state_dict())))
    assert restored == running
    for moments in (running, restored):
        moments.update(torch.ones(3))
    assert restored == running


def test_scores_that_never_vary_are_not_blown_up() -> None:
    """A first batch that failed altogether, -1 everywhere, would else be -10,000, and the critic would begin there."""
    running = RunningMoments()
    running.update(torch.full((4,), 5.0))
    assert running.normalize(torch.tensor([5.01], dtype=torch.float64)).item() == pytest.approx(0.01)
    assert running.scale(torch.tensor([5.0])).item() == 5.0
    running.update(torch.tensor([5.0, 6.0]))
    assert running.scale(torch.tensor([5.0])).item() == pytest.approx(5 / running.variance**0.5, rel=1e-6)


def test_scaling_keeps_the_sign_and_ignores_the_mean() -> None:
    running = RunningMoments(count=2, mean=100.0, variance=4.0)
    torch.testing.assert_close(running.scale(torch.tensor([6.0, -1.0])), torch.tensor([3.0, -0.5]))


def test_fresh_running_moments_change_nothing() -> None:
    torch.testing.assert_close(RunningMoments().normalize(torch.tensor([2.0, -1.0])), torch.tensor([2.0, -1.0]))
