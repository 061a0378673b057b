"""What a run says about itself: silent on healthy runs, one clear line on each kind of bad one."""

import json
import random
from pathlib import Path

import pytest
from tiny_runs import make_config

from rlhf.config import WatchConfig
from rlhf.config.watch import require_untrained_gold
from rlhf.errors import UserError
from rlhf.rewards import RewardSpec, RewardSum
from rlhf.stages.ppo import build_trainer
from rlhf.watch.hacking import HackingDetector, Smoothed
from rlhf.watch.symptoms import SYMPTOMS
from rlhf.watch.watch import Finding, Watch

RUNS = json.loads((Path(__file__).parent / "golden" / "watch_runs.json").read_text())
"""Real runs of the quickstart's SFT model, metric by metric; `about` says how each was made."""

HEALTHY = {
    "objective/score": 1.5,
    "objective/score_std": 0.5,
    "objective/kl": 3.0,
    "objective/entropy": 0.3,
    "policy/clip_fraction": 0.03,
    "policy/approx_kl": 0.01,
    "policy/warmup": 0.0,
    "critic/loss": 0.02,
    "critic/explained_variance": 0.5,
    "response/length": 60.0,
    "response/eos_rate": 0.95,
    "reward/gold": 0.4,
}


def watch(gold="gold", adaptive_kl_target=None, **options) -> Watch:
    return Watch(WatchConfig(gold=gold, **options), adaptive_kl_target, max_new_tokens=96)


def updates(run: dict[str, list[float]]) -> list[dict[str, float]]:
    """Columns to rows."""
    return [dict(zip(run, row, strict=True)) for row in zip(*run.values(), strict=True)]


def follow(guard: Watch, rows: list[dict[str, float]]) -> list[tuple[int, Finding]]:
    return [(step, finding) for step, row in enumerate(rows, start=1) for finding in guard.check(step, row)]


def names(guard: Watch, rows: list[dict[str, float]]) -> list[tuple[int, str]]:
    return [(step, finding.name) for step, finding in follow(guard, rows)]


@pytest.mark.parametrize("name", [name for name in RUNS if name.startswith("healthy")])
def test_healthy_runs_are_left_in_peace(name):
    assert names(watch(), updates(RUNS[name]["metrics"])) == []


@pytest.mark.parametrize("name", [name for name in RUNS if not name.startswith("healthy")])
def test_bad_runs_are_reported(name):
    """The updates at which each finding came when the thresholds were set, all well before the run's end."""
    found = names(watch(), updates(RUNS[name]["metrics"]))
    assert found == [tuple(finding) for finding in RUNS[name]["findings"]]


def no_signal(prompts, completions, **columns):
    return [1.0] * len(prompts)


@pytest.mark.parametrize(
    ("finding", "options"),
    [
        ("standstill", {"learning_rate": 1e-9}),
        ("kl_blow_up", {"learning_rate": 0.1, "kl_coef": 0.0}),
        ("no_signal", {"rewards": [RewardSpec(path="test_watch.no_signal")], "learning_rate": 1e-5}),
        ("negative_kl", {"kl_coef": 0.0, "learning_rate": 0.03}),
    ],
)
def test_a_real_run_gone_wrong(tiny_models, pairs, monkeypatch, finding, options):
    config = make_config(tiny_models["gpt2"], pairs, num_updates=12, lr_schedule="constant", **options)
    trainer = build_trainer(config, RewardSum.from_specs(config.rewards))
    if finding == "negative_kl":  # a sampler that never gets the new weights
        monkeypatch.setattr("rlhf.sampling.responses.decoding", lambda policy, n_rows: policy.reference())
    guard = watch(gold=None)
    found = names(guard, [trainer.update().metrics for _ in range(12)])
    assert finding in [name for _, name in found]


def constant(**changes) -> list[dict[str, float]]:
    """Twenty equal updates, with some metrics changed from the fourth on."""
    changed = {name.replace("__", "/"): value for name, value in changes.items()}
    return [HEALTHY] * 3 + [HEALTHY | changed] * 17


def test_constant_healthy_metrics_say_nothing():
    assert names(watch(), constant()) == []


SYMPTOM_CASES = [
    # finding, the update at which it is due, what goes wrong, what does not yet, words of the message
    ("kl_blow_up", 5, {"objective__kl": 300.0}, {"objective__kl": 8.0}, "above the limit of 30"),
    (
        "negative_kl",
        8,
        {"objective__kl": -0.3},
        {"objective__kl": -0.19},
        "-0.30 nats per response, negative 5 updates",
    ),
    (
        "entropy_collapse",
        8,
        {"objective__entropy": 0.08},
        {"objective__entropy": 0.1},
        "0.080 nats per token and was 0.3",
    ),
    (
        "critic_blind",
        10,
        {"critic__explained_variance": 0.05},
        {"critic__explained_variance": 0.15},
        "explains 0.05 of",
    ),
    ("clip_fraction_high", 8, {"policy__clip_fraction": 0.35}, {"policy__clip_fraction": 0.29}, "35% of the tokens"),
    ("length_at_limit", 8, {"response__length": 90.0}, {"response__length": 86.0}, "90 tokens and had 60 at the start"),
    ("length_collapse", 8, {"response__length": 25.0}, {"response__length": 31.0}, "25.0 tokens and had 60.0 at the"),
    ("no_signal", 8, {"objective__score_std": 0.0}, {"objective__score_std": 1e-3}, "score the same (1.5, standard"),
]


@pytest.mark.parametrize(("finding", "due", "wrong", "words"), [(f, d, w, text) for f, d, w, _, text in SYMPTOM_CASES])
def test_each_symptom_is_reported_once_when_it_is_due(finding, due, wrong, words):
    """Due: three healthy updates, then as many bad ones as the mean over 5 (or median of 10) needs; by hand."""
    [(step, found)] = follow(watch(), constant(**wrong))
    assert (step, found.name) == (due, finding)
    assert found.message.startswith(f"update {due}: ")
    assert words in found.message


@pytest.mark.parametrize("harmless", [harmless for _, _, _, harmless, _ in SYMPTOM_CASES])
def test_nearly_wrong_is_not_wrong(harmless):
    assert follow(watch(), constant(**harmless)) == []


def test_one_bad_update_is_not_a_bad_run():
    rows = constant()
    rows[9] = rows[9] | {"objective/kl": -2.0, "critic/explained_variance": -5.0, "objective/score_std": 0.0}
    assert follow(watch(), rows) == []


def test_every_symptom_has_a_case():
    assert {case[0] for case in SYMPTOM_CASES} | {"standstill"} == set(SYMPTOMS)


def test_standstill_needs_all_three_at_zero():
    frozen = {"policy/clip_fraction": 0.0, "policy/approx_kl": 1e-9, "objective/kl": 1e-4}
    assert names(watch(), [HEALTHY | frozen] * 12) == [(10, "standstill")]
    # One optimizer step per rollout: the ratio is 1 whatever is learned. A decayed learning rate: it has moved before.
    for kl in (0.02, -0.02):
        assert names(watch(), [HEALTHY | frozen | {"objective/kl": kl}] * 12) == []


def test_spread_of_rounding_errors_is_no_signal():
    rounded = {"objective/score": 1e6, "objective/score_std": 0.1}  # float32 has steps of 0.06 there
    assert names(watch(), [HEALTHY | rounded] * 6) == [(5, "no_signal")]
    assert names(watch(), [HEALTHY | rounded | {"objective/score_std": 10.0}] * 6) == []


def test_kl_is_judged_by_its_target_if_there_is_one():
    rows = [HEALTHY | {"objective/kl": 17.0}] * 6
    assert names(watch(adaptive_kl_target=6.0), rows) == []
    assert names(watch(adaptive_kl_target=5.0), rows) == [(5, "kl_blow_up")]
    assert names(watch(kl_limit=16.0), rows) == [(5, "kl_blow_up")]
    assert names(watch(kl_limit=16.0, adaptive_kl_target=6.0), rows) == []


def test_kl_that_triples_is_reported_before_it_reaches_the_limit():
    def run(before: float) -> list[dict[str, float]]:
        return [HEALTHY | {"objective/kl": kl} for kl in [before] * 5 + [15.0] * 5]

    assert names(watch(), run(4.9)) == [(10, "kl_blow_up")]
    assert names(watch(), run(5.1)) == []
    assert names(watch(kl_limit=61.0), run(4.9)) == []  # 15 is less than a quarter of it


def test_warm_up_is_left_out_and_values_that_are_not_finite_are_reported_once():
    warming_up = HEALTHY | {"policy/warmup": 1.0, "objective/kl": 1e6}
    assert names(watch(), [warming_up] * 10) == []
    broken = HEALTHY | {"objective/kl": float("nan"), "objective/score": float("inf"), "reward/gold": float("nan")}
    guard = watch()
    assert names(guard, [broken, HEALTHY] * 10) == [(1, "not_finite")]
    json.dumps(guard.state_dict(), allow_nan=False)


def test_without_a_critic_nothing_is_said_of_it():
    rows = [{k: v for k, v in HEALTHY.items() if not k.startswith("critic/")} | {"critic/explained_variance": 0.0}] * 12
    assert names(watch(), rows) == []


def test_missing_metrics_are_no_error():
    assert names(watch(), [{"objective/score": 1.0}] * 12) == []


@pytest.mark.parametrize("name", RUNS)
def test_resumed_after_any_update_it_says_the_same(name):
    rows = updates(RUNS[name]["metrics"])
    uninterrupted = watch()
    expected, resumed_at_once = follow(uninterrupted, rows), watch()
    found = []
    for step, row in enumerate(rows, start=1):
        found += [(step, finding) for finding in resumed_at_once.check(step, row)]
        state = json.loads(json.dumps(resumed_at_once.state_dict()))
        resumed_at_once = watch()
        resumed_at_once.load_state_dict(state)
    assert found == expected
    assert resumed_at_once.state_dict() == uninterrupted.state_dict()


def test_state_does_not_grow_with_the_run():
    guard = watch()
    follow(guard, [HEALTHY] * 20)
    size = len(json.dumps(guard.state_dict()))
    follow(guard, [HEALTHY] * 200)
    assert len(json.dumps(guard.state_dict())) < size + 50


def test_stop_on_hacking_asks_for_a_stop():
    hack = updates(RUNS["length_hack"]["metrics"])
    for options, stops in [({}, False), ({"stop_on_hacking": True}, True)]:
        guard = watch(**options)
        assert not guard.stop
        assert "reward_hacking" in [name for _, name in names(guard, hack)]
        assert guard.stop == stops
        again = watch(**options)
        again.load_state_dict(guard.state_dict())
        assert again.stop == stops
    assert "reward_hacking" not in [name for _, name in names(watch(gold=None), hack)]


def test_smoothed_series_by_hand():
    series = Smoothed()
    for value in (1.0, 3.0, 2.0):
        series.add(value)
    assert series.mean == pytest.approx(2.0)  # plainly averaged up to 1 / 0.25 values
    assert series.variance == pytest.approx((4 / 2 + 1 / 2) / 2)  # half the mean squared difference
    for value in (2.0, 6.0):
        series.add(value)
    assert series.mean == pytest.approx(2.0 + 0.25 * 4.0)
    assert series.variance == pytest.approx((4 / 2 + 1 / 2 + 0 + 16 / 2) / 4)
    assert series.standard_error == pytest.approx((10.5 / 4 * 2 * 0.25 / 1.75) ** 0.5)


def hacked_at(score_slope: float, gold_slope: float, noise: float, seed: int, n: int = 120) -> int | None:
    """First update at which two noisy lines count as hacking."""
    generator, detector = random.Random(seed), HackingDetector()
    for t in range(n):
        seen = detector.add(score_slope * t + generator.gauss(0, noise), gold_slope * t + generator.gauss(0, noise))
        if seen and seen.is_hacking:
            return t
    return None


@pytest.mark.parametrize(("score_slope", "gold_slope"), [(0.1, 0.0), (0.1, 0.1), (-0.1, -0.1), (0.0, -0.1), (0.0, 0.0)])
def test_noise_and_movements_of_one_series_are_not_hacking(score_slope, gold_slope):
    alarms = [seed for seed in range(50) if hacked_at(score_slope, gold_slope, noise=1.0, seed=seed) is not None]
    assert alarms == []


def test_score_up_and_gold_down_beyond_noise_is_hacking():
    found = [hacked_at(0.1, -0.1, noise=1.0, seed=seed) for seed in range(50)]
    assert all(update is not None and 20 < update < 80 for update in found)
    quieter = [hacked_at(0.1, -0.1, noise=0.25, seed=seed) for seed in range(50)]
    assert sorted(quieter)[25] < sorted(found)[25] / 2  # less noise, sooner seen


def test_config_contradictions():
    with pytest.raises(UserError, match="kl_limit is 0"):
        WatchConfig(kl_limit=0.0)
    with pytest.raises(UserError, match=r"watch\.stop_on_hacking needs watch\.gold"):
        WatchConfig(stop_on_hacking=True)
    rewards = [RewardSpec(path="react_heuristic"), RewardSpec(path="react_parses", weight=0.0, name="gold")]
    require_untrained_gold(WatchConfig(), rewards)
    require_untrained_gold(WatchConfig(gold="gold"), rewards)
    with pytest.raises(UserError, match="must be one of the rewards: react_heuristic, gold"):
        require_untrained_gold(WatchConfig(gold="react_parses"), rewards)
    with pytest.raises(UserError, match="'react_heuristic' has weight 1; it must not be trained on"):
        require_untrained_gold(WatchConfig(gold="react_heuristic"), rewards)
