"""pass@k against what it stands for, and its place in `rlhf evaluate`."""

import json
import re
from itertools import combinations
from pathlib import Path
from statistics import fmean

import pytest
from tiny_runs import COUNT_E

from rlhf.config import DataConfig, EvaluateConfig, ModelConfig, SamplingConfig
from rlhf.config.evaluation import PassConfig, pass_counts
from rlhf.errors import UserError
from rlhf.evaluation.pass_at_k import pass_at_k, pass_rates
from rlhf.rewards import RewardSpec
from rlhf.stages.evaluate import main, run_evaluate


@pytest.mark.parametrize(("n", "passed"), [(1, 0), (1, 1), (5, 0), (5, 2), (5, 4), (5, 5), (7, 1)])
def test_it_is_the_share_of_all_draws_of_k_that_hold_a_pass(n, passed):
    responses = [index < passed for index in range(n)]
    for k in range(1, n + 1):
        assert pass_at_k(n, passed, k) == pytest.approx(fmean(map(any, combinations(responses, k))), abs=1e-12)


def test_many_responses_do_not_overflow():
    assert pass_at_k(2000, 1, 1000) == pytest.approx(0.5)


def test_prompts_are_averaged_and_those_without_the_reward_left_out():
    scores = [1.0, 0.0, 0.9, 0.2, None, None, None, None, None, 1.0, 1.0, 1.0]
    rates = pass_rates(scores, 4, PassConfig(threshold=0.9))
    # two of four, nothing to say, three of four
    assert rates == pytest.approx({"pass@1": (2 / 4 + 3 / 4) / 2, "pass@2": (5 / 6 + 1) / 2, "pass@4": 1.0})
    assert pass_rates([None, None], 2, PassConfig()) == {}


def test_which_k():
    assert [pass_counts(n) for n in (2, 4, 5, 8)] == [[1, 2], [1, 2, 4], [1, 2, 4, 5], [1, 2, 4, 8]]


@pytest.fixture
def config(tiny_models, pairs, tmp_path) -> dict:
    return {
        "output_dir": str(tmp_path / "evaluation"),
        "model": ModelConfig(name_or_path=str(tiny_models["gpt2"])),
        "data": DataConfig(eval=pairs),
        "rewards": [COUNT_E, RewardSpec(path="repetition", weight=0.5)],
        "sampling": SamplingConfig(max_new_tokens=8),
        "prompts": 3,
    }


def test_evaluate_counts_passes_and_decodes_greedily(config, capsys):
    passing = PassConfig(reward="count_e", threshold=0.05)
    measurement = run_evaluate(EvaluateConfig(**config, num_generations=4, pass_at_k=passing, greedy=True))
    passed = [row["count_e"] >= 0.05 for row in measurement.rows]
    groups = [passed[start : start + 4] for start in (0, 4, 8)]
    means = measurement.means
    assert 0 < means["pass@1"] == fmean(passed) < 1
    assert means["pass@2"] == pytest.approx(fmean(fmean(map(any, combinations(group, 2))) for group in groups))
    assert means["pass@4"] == fmean(map(any, groups))
    alone = dict(
        config, output_dir=config["output_dir"] + "_greedy", sampling=SamplingConfig(max_new_tokens=8, temperature=0.0)
    )
    greedy = run_evaluate(EvaluateConfig(**alone)).means
    assert means["greedy/count_e"] == greedy["count_e"]
    assert means["greedy/reward"] == greedy["reward"]
    assert not {"greedy/kl", "greedy/entropy"} & means.keys()
    assert means == json.loads((Path(config["output_dir"]) / "evaluation.json").read_text())
    main(EvaluateConfig(**config, num_generations=4, pass_at_k=passing, greedy=True))  # read back
    table = capsys.readouterr().out
    assert re.search(r"held-out mean\W+sampled\W+greedy", table)
    assert re.search(rf"count_e\W+{means['count_e']:.3f}\W+{means['greedy/count_e']:.3f}", table)
    assert re.search(rf"pass@4\W+{means['pass@4']:.3f}", table)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pass_at_k": PassConfig(reward="count_e")}, "pass_at_k is set, but num_generations is 1; it needs at "),
        ({"pass_at_k": PassConfig(), "num_generations": 2},
         "pass_at_k.reward is not set; it must be one of the rewards: count_e, repetition"),
        ({"pass_at_k": PassConfig(reward="e"), "num_generations": 2}, "pass_at_k.reward is 'e'; it must be one of the"),
        ({"greedy": True, "sampling": SamplingConfig(temperature=0.0)}, "decodes greedily already"),
    ],
)  # fmt: skip
def test_what_cannot_be_counted_is_refused(config, options, message):
    with pytest.raises(UserError, match=message):
        EvaluateConfig(**config | options)
