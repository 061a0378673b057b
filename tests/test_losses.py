"""The maths of PPO against the golden file (a slow float64 oracle, one sequence at a time) and worked examples."""

import json
import math
from pathlib import Path

import pytest
import torch

from rlhf.maths.advantages import (
    discounted_sum,
    gae,
    group_relative,
    kl_shaped_rewards,
    last_token_index,
    leave_one_out,
    reward_per_token,
)
from rlhf.maths.kl import AdaptiveKLController, FixedKLController, kl_estimate, kl_from_logits, target_kl_penalty
from rlhf.maths.losses import (
    aggregate,
    clipped_policy_loss,
    clipped_value_loss,
    reinforce_loss,
    truncated_importance_weights,
)

GOLDEN = json.loads((Path(__file__).parent / "golden" / "ppo_maths.json").read_text())
DOCUMENTS = GOLDEN["documents"]
MASK = torch.tensor(GOLDEN["mask"]).bool()
EXACT = {"atol": 1e-9, "rtol": 0.0}


def f64(values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def everywhere(x: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(x, dtype=torch.bool)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "abs"])
def test_kl_estimates(estimator: str) -> None:
    kl = kl_estimate(f64(GOLDEN["logprobs"]), f64(GOLDEN["ref_logprobs"]), estimator)
    expected = f64(GOLDEN["kl"][estimator])
    torch.testing.assert_close(kl[MASK], expected[MASK], **EXACT)


def test_k3_keeps_its_digits_near_zero() -> None:
    d = 1e-4  # exp(-d) - 1 + d computed naively in float32 is off by 60% here
    k3 = kl_estimate(torch.tensor([d]), torch.tensor([0.0]), "k3")
    assert k3.item() == pytest.approx(d**2 / 2, rel=1e-3)


def test_an_unknown_kl_estimator_is_named() -> None:
    with pytest.raises(ValueError, match=r"kl estimator is 'k4'; it must be one of k1, k2, k3, abs"):
        kl_estimate(torch.zeros(1), torch.zeros(1), "k4")  # type: ignore[arg-type]


def test_exact_kl_by_hand() -> None:
    half, quarter = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    assert kl_from_logits(half, quarter).item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert kl_from_logits(quarter, half).item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert kl_from_logits(half + 3, half - 2).abs() < 1e-6  # logits are defined up to a constant


def test_exact_kl_with_forbidden_tokens() -> None:
    never, always = torch.tensor([0.0, -math.inf], requires_grad=True), torch.tensor([0.0, 0.0])
    kl = kl_from_logits(never, always)
    assert kl.item() == pytest.approx(math.log(2))
    kl.backward()
    assert never.grad is not None
    assert torch.isfinite(never.grad).all()
    assert kl_from_logits(always, never.detach()) == math.inf


def test_target_kl_penalty_pulls_from_both_sides() -> None:
    kl = torch.tensor([0.02, 0.3], requires_grad=True)
    penalty = target_kl_penalty(kl, 0.1)
    torch.testing.assert_close(penalty, torch.tensor([0.08, 0.2]))
    penalty.sum().backward()
    assert kl.grad is not None
    assert kl.grad.tolist() == [-1, 1]


def test_last_token_index() -> None:
    assert last_token_index(MASK).tolist() == [n - 1 for n in GOLDEN["lengths"]]
    assert last_token_index(torch.zeros(2, 3, dtype=torch.bool)).tolist() == [0, 0]


def test_kl_shaped_rewards() -> None:
    case = GOLDEN["kl_shaped_rewards"]
    k1 = kl_estimate(f64(GOLDEN["logprobs"]), f64(GOLDEN["ref_logprobs"]))
    rewards = kl_shaped_rewards(f64(case["scores"]), k1, MASK, case["kl_coef"])
    torch.testing.assert_close(rewards, f64(case["expected"]), **EXACT)


def test_an_empty_response_earns_nothing() -> None:
    mask = torch.tensor([[True, False], [False, False]])
    rewards = kl_shaped_rewards(torch.tensor([3.0, 5.0]), torch.ones(2, 2), mask, 0.5)
    assert rewards.tolist() == [[2.5, 0], [0, 0]]


def test_the_rlhf_reward_of_document_001() -> None:
    case = DOCUMENTS["kl_penalty"]
    kl = kl_estimate(f64([case["logprobs"]]), f64([case["ref_logprobs"]]))
    for kl_coef, total in case["total_reward"].items():
        rewards = kl_shaped_rewards(f64([case["score"]]), kl, everywhere(kl), float(kl_coef))
        assert rewards.sum().item() == pytest.approx(total)


@pytest.mark.parametrize("case", GOLDEN["gae"], ids=lambda case: f"gamma {case['gamma']} lambda {case['gae_lambda']}")
def test_gae(case: dict) -> None:
    rewards = f64(GOLDEN["kl_shaped_rewards"]["expected"])
    advantages, returns = gae(rewards, f64(GOLDEN["values"]), MASK, case["gamma"], case["gae_lambda"])
    torch.testing.assert_close(advantages, f64(case["advantages"]), **EXACT)
    torch.testing.assert_close(returns, f64(case["returns"]), **EXACT)


def test_gae_with_padding_on_the_left() -> None:
    rewards, values = f64([[9.0, 1.0, 2.0, 9.0]]), f64([[9.0, 0.5, 0.25, 9.0]])
    mask = torch.tensor([[False, True, True, False]])
    advantages, returns = gae(rewards, values, mask, 1.0, 1.0)
    assert advantages.tolist() == [[0, 2.5, 1.75, 0]]
    assert returns.tolist() == [[0, 3, 2, 0]]


@pytest.mark.parametrize("name", ["five_tokens", "ten_tokens"])
def test_gae_of_the_documents(name: str) -> None:
    case = DOCUMENTS[name]
    rewards, values = f64([case["rewards"]]), f64([case["values"]])
    advantages, _ = gae(rewards, values, everywhere(rewards), case["gamma"], case["gae_lambda"])
    torch.testing.assert_close(advantages, f64([case["advantages"]]), **EXACT)
    if "discounted_returns" in case:
        returns = discounted_sum(rewards, case["gamma"])
        torch.testing.assert_close(returns, f64([case["discounted_returns"]]), **EXACT)


@pytest.mark.parametrize("length", [1, 2, 3, 64, 65, 200])
@pytest.mark.parametrize("discount", [0.0, 0.5, 0.95, 1.0])
def test_discounted_sum_is_the_plain_recursion(length: int, discount: float) -> None:
    x = torch.randn(3, length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected, total = torch.zeros_like(x), torch.zeros(3, dtype=torch.float64)
    for t in reversed(range(length)):
        total = x[:, t] + discount * total
        expected[:, t] = total
    torch.testing.assert_close(discounted_sum(x, discount), expected, atol=1e-12, rtol=0)


def test_gae_keeps_its_precision_under_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(4, 100, generator=generator), torch.randn(4, 100, generator=generator)
    plain = gae(rewards, values, everywhere(rewards), 1.0, 0.95)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = gae(rewards, values, everywhere(rewards), 1.0, 0.95)
    assert all(torch.equal(a, b) for a, b in zip(plain, autocast, strict=True))


def test_reward_per_token_of_document_002() -> None:
    mask = torch.tensor([[True, True, True, False], [True, False, False, False], [False] * 4])
    advantages = reward_per_token(torch.tensor([1.5, -2.0, 9.0]), mask)
    assert advantages.tolist() == [[0.5, 0.5, 0.5, 0], [-2, 0, 0, 0], [0, 0, 0, 0]]


def test_empty_responses_give_no_nan_gradient() -> None:
    scores = torch.tensor([1.5, 9.0], requires_grad=True)
    reward_per_token(scores, torch.tensor([[True, True], [False, False]])).sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [1, 0]


def test_leave_one_out_by_hand() -> None:
    scores = torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 5.0])
    assert leave_one_out(scores, 3).tolist() == [1 - 4, 2 - 3.5, 6 - 1.5, 0, 0, 0]


def test_group_relative_by_hand() -> None:
    scores = torch.tensor([1.0, 2.0, 3.0, 7.0, 7.0, 7.0])  # std 1 with divisor k - 1, and no spread at all
    torch.testing.assert_close(group_relative(scores, 3), torch.tensor([-1, 0, 1, 0, 0, 0]) / 1.0001)


@pytest.mark.parametrize("advantages", [leave_one_out, group_relative])
def test_groups_that_do_not_fit_are_refused(advantages) -> None:
    with pytest.raises(ValueError, match=r"num_generations is 1; .* at least 2"):
        advantages(torch.zeros(4), 1)
    with pytest.raises(ValueError, match=r"shape \(4,\); it must be \[B\], B a multiple of num_generations = 3"):
        advantages(torch.zeros(4), 3)
    with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
        advantages(torch.zeros(2, 2), 2)


@pytest.mark.parametrize("case", GOLDEN["policy_loss"], ids=["clip 0.2", "clip 0.1", "dual clip"])
def test_clipped_policy_loss(case: dict) -> None:
    inputs = (f64(GOLDEN["logprobs"]), f64(case["old_logprobs"]), f64(GOLDEN["whiten"]["expected"]), MASK)
    for aggregation in ("token_mean", "sequence_mean"):
        loss, stats = clipped_policy_loss(*inputs, case["clip_range"], case["dual_clip"], aggregation)
        assert loss.item() == pytest.approx(case[aggregation], abs=1e-9)
    for name in ("ratio_mean", "approx_kl"):
        assert stats[name].item() == pytest.approx(case[name], abs=1e-9)


def test_which_tokens_are_clipped_by_hand() -> None:
    ratios = f64([[1.5, 0.5, 1.5, 0.5, 4.0, 1.0]])
    advantages = f64([[1.0, 1.0, -1.0, -1.0, -1.0, 1.0]])
    # clipped where the move would pay: up when A > 0, down when A < 0; the ratio of 4 hits the ceiling of 3
    loss, stats = clipped_policy_loss(
        ratios.log(), torch.zeros_like(ratios), advantages, everywhere(ratios), 0.2, dual_clip=3.0
    )
    assert loss.item() == pytest.approx((-1.2 - 0.5 + 1.5 + 0.8 + 3.0 - 1.0) / 6)
    assert stats["clip_fraction"].item() == pytest.approx(2 / 6)
    assert stats["dual_clip_fraction"].item() == pytest.approx(1 / 6)
    assert stats["ratio_mean"].item() == pytest.approx(9 / 6)


def test_the_dual_clip_spares_good_tokens() -> None:
    huge = f64([[10.0]]).log()
    loss, stats = clipped_policy_loss(huge, torch.zeros_like(huge), f64([[1.0]]), everywhere(huge), 0.2, dual_clip=3.0)
    assert loss.item() == pytest.approx(-1.2)
    assert stats["dual_clip_fraction"] == 0


def test_clip_examples_of_the_documents() -> None:
    case = DOCUMENTS["clip_example"]
    ratio = f64([[case["ratio"]]])
    loss, _ = clipped_policy_loss(
        ratio.log(), torch.zeros_like(ratio), f64([[case["advantage"]]]), everywhere(ratio), case["clip_range"]
    )
    assert loss.item() == pytest.approx(-case["objective"])
    case = DOCUMENTS["three_tokens"]
    logprobs = f64([case["logprobs"]])
    loss, _ = clipped_policy_loss(
        logprobs, f64([case["old_logprobs"]]), f64([case["advantages"]]), everywhere(logprobs), case["clip_range"]
    )
    assert loss.item() == pytest.approx(case["loss"], abs=1e-12)


def test_gradient_stops_exactly_where_the_clip_bites() -> None:
    log_ratio = f64([[1.5, 0.5, 1.5, 0.5]]).log().requires_grad_()
    advantages = f64([[1.0, 1.0, -1.0, -1.0]])
    loss, _ = clipped_policy_loss(log_ratio, torch.zeros(1, 4), advantages, everywhere(advantages), 0.2)
    (4 * loss).backward()
    assert log_ratio.grad is not None
    torch.testing.assert_close(log_ratio.grad, f64([[0.0, -0.5, 1.5, 0.0]]))  # -A r where it flows


def test_statistics_carry_no_gradient() -> None:
    logprobs = torch.zeros(1, 2, requires_grad=True)
    _, stats = clipped_policy_loss(logprobs, torch.zeros(1, 2), torch.ones(1, 2), everywhere(logprobs), 0.2)
    _, value_stats = clipped_value_loss(logprobs, torch.zeros(1, 2), torch.ones(1, 2), everywhere(logprobs), 0.2)
    assert not any(value.requires_grad for value in [*stats.values(), *value_stats.values()])


def test_reinforce_by_hand_and_as_the_start_of_ppo() -> None:
    logprobs = f64([[-1.0, -2.0], [-3.0, 5.0]]).requires_grad_()
    advantages, mask = f64([[2.0, -1.0], [0.5, math.nan]]), torch.tensor([[True, True], [True, False]])
    loss = reinforce_loss(logprobs, advantages, mask)
    assert loss.item() == pytest.approx((2 - 2 + 1.5) / 3)
    assert reinforce_loss(logprobs, advantages, mask, "sequence_mean").item() == pytest.approx((0 + 1.5) / 2)
    reinforce = torch.autograd.grad(loss, logprobs)
    ppo = torch.autograd.grad(clipped_policy_loss(logprobs, logprobs.detach(), advantages, mask, 0.2)[0], logprobs)
    torch.testing.assert_close(reinforce, ppo)  # at ratio 1 they are the same gradient


def test_reinforce_leaves_the_advantages_alone() -> None:
    advantages = torch.ones(1, 1, requires_grad=True)
    assert not reinforce_loss(torch.zeros(1, 1), advantages, everywhere(advantages)).requires_grad


@pytest.mark.parametrize("case", GOLDEN["value_loss"], ids=["clipped", "not clipped"])
def test_clipped_value_loss(case: dict) -> None:
    inputs = (f64(GOLDEN["new_values"]), f64(GOLDEN["values"]), f64(GOLDEN["gae"][0]["returns"]), MASK)
    loss, stats = clipped_value_loss(*inputs, case["value_clip_range"])
    assert loss.item() == pytest.approx(case["half_mean"], abs=1e-9)
    assert stats["clip_fraction"].item() == pytest.approx(case["clip_fraction"], abs=1e-9)


def test_value_loss_of_document_003() -> None:
    case = DOCUMENTS["combined_loss"]
    values = f64([case["values"]])
    loss, _ = clipped_value_loss(values, values, f64([case["returns"]]), everywhere(values), None)
    assert 2 * loss.item() == pytest.approx(case["value_mse"])  # ours is half of the mean squared error


def test_value_loss_gradient_stops_beyond_the_clip() -> None:
    values = f64([[1.0, 1.0, -1.0]]).requires_grad_()  # moved from 0: toward, past, and away from the return
    loss, stats = clipped_value_loss(values, torch.zeros(1, 3), f64([[2.0, 0.9, 2.0]]), everywhere(values), 0.2)
    (3 * loss).backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, f64([[0.0, 0.0, -3.0]]))
    assert stats["clip_fraction"].item() == pytest.approx(2 / 3)


def test_value_loss_sequence_mean() -> None:
    values, mask = f64([[1.0, 3.0], [2.0, math.nan]]), torch.tensor([[True, True], [True, False]])
    loss, _ = clipped_value_loss(values, values, torch.zeros(2, 2), mask, None, "sequence_mean")
    assert loss.item() == pytest.approx(((1 + 9) / 2 / 2 + 4 / 2) / 2)


def test_aggregations_differ_on_ragged_batches() -> None:
    loss, mask = f64([[1.0, 2.0, 3.0], [10.0, 99.0, 99.0], [99.0] * 3]), torch.tensor(
        [[True, True, True], [True, False, False], [False] * 3]
    )  # fmt: skip
    assert aggregate(loss, mask, "token_mean").item() == pytest.approx(16 / 4)
    assert aggregate(loss, mask, "sequence_mean").item() == pytest.approx((2 + 10) / 2)  # the empty row has no say
    with pytest.raises(ValueError, match=r"aggregation is 'sum'; it must be one of token_mean, sequence_mean"):
        aggregate(loss, mask, "sum")  # type: ignore[arg-type]


def test_adaptive_kl_controller() -> None:
    case = GOLDEN["adaptive_kl"]
    controller = AdaptiveKLController(kl_coef=case["init_kl_coef"], target=case["target"], horizon=case["horizon"])
    for kl, expected in zip(case["kl"], case["kl_coef_after"], strict=True):
        controller.update(kl, case["n_steps"])
        assert controller.kl_coef == pytest.approx(expected, rel=1e-12)
    restored = AdaptiveKLController(kl_coef=1.0, target=case["target"], horizon=case["horizon"])
    restored.load_state_dict(json.loads(json.dumps(controller.state_dict())))
    assert restored == controller


def test_an_adaptive_coefficient_never_turns_negative() -> None:
    controller = AdaptiveKLController(kl_coef=0.1, target=6.0, horizon=100)
    controller.update(0.0, 499)
    assert 0 < controller.kl_coef == pytest.approx(0.1 * (1 - 0.2 * 4.99))
    with pytest.raises(ValueError, match=r"horizon is 100; .*500 sequences"):
        controller.update(0.0, 500)


def test_fixed_kl_controller_stays_and_is_saved() -> None:
    controller = FixedKLController(kl_coef=0.3)
    controller.update(100.0, 256)
    restored = FixedKLController(kl_coef=0.0)
    restored.load_state_dict(controller.state_dict())
    assert restored.kl_coef == controller.kl_coef == 0.3


def test_bfloat16_inputs_are_computed_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(4, 50, generator=generator).bfloat16() for _ in range(3))
    mask = everywhere(a)
    narrow, wide = [], []
    for results, cast in ((narrow, lambda x: x), (wide, lambda x: x.float())):
        x, y, z = cast(a), cast(b), cast(c)
        policy, stats = clipped_policy_loss(x, y, z, mask, 0.2)
        value, _ = clipped_value_loss(x, y, z, mask, 0.2)
        results += [policy, value, stats["ratio_mean"], *gae(x, y, mask, 0.99, 0.95), kl_estimate(x, y, "k3")]
        results += [kl_shaped_rewards(x[:, 0], y, mask, 0.1), reward_per_token(x[:, 0], mask), kl_from_logits(x, y)]
        results += [discounted_sum(x, 0.9), target_kl_penalty(x, 0.1), aggregate(x, mask)]
        results += [leave_one_out(x[:, 0], 2), group_relative(x[:, 0], 2), reinforce_loss(x, z, mask)]
    for n, w in zip(narrow, wide, strict=True):
        assert n.dtype == torch.float32
        assert torch.equal(n, w)


def test_the_two_estimates_of_the_step_taken():
    """Log ratios 0.1 and -0.3: k1 = mean(-log r) = 0.1, k2 = (0.01 + 0.09) / 4 = 0.025; padding counts for nothing."""
    old, mask = torch.full((1, 3), -1.0), torch.tensor([[True, True, False]])
    _, stats = clipped_policy_loss(torch.tensor([[-0.9, -1.3, 5.0]]), old, torch.ones(1, 3), mask, 0.2)
    assert stats["approx_kl_k1"].item() == pytest.approx(0.1, abs=1e-6)
    assert stats["approx_kl"].item() == pytest.approx(0.025, abs=1e-6)


# A sampler that is not the policy

OURS = [[math.log(0.5), math.log(0.5), math.log(0.5)], [math.log(0.6), 9.0, 9.0]]
THEIRS = [[math.log(0.5), math.log(0.1), math.log(1.0)], [math.log(0.8), -9.0, float("nan")]]
DRAWN = torch.tensor([[True, True, True], [True, False, False]])


@pytest.mark.parametrize(
    ("level", "cap", "expected"),
    [
        ("token", 2.0, [[1.0, 2.0, 0.5], [0.75, 1.0, 1.0]]),  # .5/.5, .5/.1 = 5 cut to 2, .5/1; .6/.8
        ("token", 10.0, [[1.0, 5.0, 0.5], [0.75, 1.0, 1.0]]),
        ("sequence", 10.0, [[2.5, 2.5, 2.5], [0.75, 1.0, 1.0]]),  # .125 / .05
        ("sequence", 2.0, [[2.0, 2.0, 2.0], [0.75, 1.0, 1.0]]),
    ],
)
def test_weights_by_hand(level, cap, expected):
    old, sampler = torch.tensor(OURS, requires_grad=True), torch.tensor(THEIRS)
    weights = truncated_importance_weights(old, sampler, DRAWN, level, cap)
    torch.testing.assert_close(weights, torch.tensor(expected))
    assert not weights.requires_grad
    half = truncated_importance_weights(old.bfloat16(), sampler.bfloat16(), DRAWN, level, cap)
    assert half.dtype == torch.float32  # the difference is taken in float32: only the inputs are rounded
    exact = truncated_importance_weights(old.bfloat16().double(), sampler.bfloat16().double(), DRAWN, level, cap)
    torch.testing.assert_close(half.double(), exact, rtol=1e-6, atol=0)


def test_a_level_that_does_not_exist():
    with pytest.raises(ValueError, match="'word'"):
        truncated_importance_weights(torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 1).bool(), "word", 2.0)


def test_the_loss_of_what_another_sampled_is_that_of_our_own_samples():
    """Two actions of probability .2 and .8, drawn by one that holds them for .5 and .5: the weights make up for it."""
    drawn = torch.tensor([[0, 1]])
    ours, sampler = torch.tensor([0.2, 0.8]).log()[drawn], torch.tensor([0.5, 0.5]).log()[drawn]
    mask, advantages = torch.ones(1, 2).bool(), torch.tensor([[1.0, -3.0]])
    weights = truncated_importance_weights(ours, sampler, mask, "token", cap=10.0)
    loss, stats = clipped_policy_loss(ours, ours, advantages, mask, 0.2, weights=weights)
    assert loss.item() == pytest.approx(-(0.2 * 1.0 + 0.8 * -3.0))  # the expectation under .2 and .8
    assert stats["ratio_mean"] == 1.0
