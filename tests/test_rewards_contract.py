"""The contract of TRL's GRPOTrainer: what a reward is given, what it may log, and where that shows."""

import json

import pytest
import trl_rewards
from tiny_runs import make_config

from rlhf.config import ScoreConfig
from rlhf.report.write import write_report
from rlhf.rewards import RewardError, RewardSpec, RewardSum, TrainerState, WeightedReward
from rlhf.rewards.scores import Scores
from rlhf.runs.files import read_jsonl
from rlhf.stages.ppo import run_ppo
from rlhf.stages.score import run_score

TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


def said(text):
    return [{"role": "assistant", "content": text}]


def sum_of(*functions):
    return RewardSum([WeightedReward(f.__name__, f) for f in functions])


# --- TRL's own rewards, unchanged ---


def test_think_format_reward():
    from trl.rewards import think_format_reward

    texts = ["<think>\nHm.\n</think>\nYes.", "Yes.", "<think>Hm."]
    scores = sum_of(think_format_reward)([TURNS] * 3, [said(text) for text in texts], {})
    assert scores.total == [1.0, 0.0, 0.0]


def test_soft_overlong_punishment():
    from trl.rewards import get_soft_overlong_punishment

    rewards = RewardSum([WeightedReward("overlong", get_soft_overlong_punishment(100, 20))])
    ids = [[1] * 80, [1] * 90, [1] * 101]
    assert rewards(["p"] * 3, ["c"] * 3, {}, completion_ids=ids).total == [0.0, -0.5, -1.0]  # (80 - 90) / 20
    with pytest.raises(RewardError, match=r"needs completion_ids \(only responses of a model have them\)"):
        rewards(["p"] * 3, ["c"] * 3, {})


@pytest.mark.parametrize("name", ["accuracy_reward", "reasoning_accuracy_reward"])
def test_accuracy_rewards(name):
    pytest.importorskip("math_verify")
    import trl.rewards

    answers = [r"</think> It is \boxed{\frac{1}{3}}", r"</think> \boxed{\frac{1}{2}}", r"</think> \boxed{1}"]
    scores = sum_of(getattr(trl.rewards, name))(
        [TURNS] * 3, [said(text) for text in answers], {"solution": [r"\frac{1}{3}", r"\frac{1}{3}", "words alone"]}
    )
    assert scores.components[name] == [1.0, 0.0, None]
    assert scores.extra(2) == {
        "solution": "words alone", "gold_parsed": "[unparseable]", "answer_parsed": "[skipped]"
    }  # fmt: skip


# --- what a reward is given ---


def test_a_function_without_kwargs_gets_what_it_names():
    scores = sum_of(trl_rewards.named_only)([TURNS, "p"], [said("Ho"), "Ho"], {"reference": ["x", "y"]})
    assert scores.total == [1.0, 0.0]


def test_a_column_that_is_missing_is_named_with_those_that_are_there():
    def needs(completions, solution, **kwargs): ...

    with pytest.raises(
        RewardError, match=r"^reward 'needs' needs solution; the data has the columns: answer, reference$"
    ):
        sum_of(needs)(["p"], ["c"], {"answer": [1], "reference": ["r"]})


def test_outside_of_training_it_is_the_end():
    def progress(completions, trainer_state, **kwargs):
        return [trainer_state.global_step / trainer_state.max_steps] * len(completions)

    assert sum_of(progress)(["p"], ["c"], {}).total == [1.0]
    assert sum_of(progress)(["p"], ["c"], {}, state=TrainerState(1, 4)).total == [0.25]


# --- what a reward logs ---


def test_extra_columns_are_joined_over_batches_and_metrics_averaged():
    rewards = sum_of(trl_rewards.keeps_count)
    parts = [
        rewards(["p"] * len(ids), ["c"] * len(ids), {}, completion_ids=ids, state=TrainerState(step, 4))
        for step, ids in ((1, [[7], [8, 9]]), (3, [[5]]))
    ]
    together = Scores.concatenate([*parts, Scores([0.0], {"keeps_count": [None]}, [[]])])
    mean = pytest.approx((2 * 1 / 4 + 1 * 3 / 4) / 3)
    assert together.logged.metric_means() == {"reward_metric/progress": mean}
    in_pairs = Scores.concatenate([Scores.concatenate(parts), Scores([], {"keeps_count": []}, []), parts[1]])
    assert in_pairs.logged.metric_means() == {"reward_metric/progress": pytest.approx((2 * 1 / 4 + 2 * 3 / 4) / 4)}
    assert [together.extra(row)["first_token"] for row in range(4)] == [7, 8, 5, None]
    assert together.extra(1)["verdict"] == "2 tokens at step 1"


def test_values_may_come_in_pieces_and_a_name_that_is_taken_gets_the_rewards_own():
    def first(completions, log_extra, **kwargs):
        for text in completions:
            log_extra("note", [text])
        return [0.0] * len(completions)

    def second(completions, log_extra, log_metric, **kwargs):
        log_extra("note", [True, float("nan")])
        log_extra("mixed", [1, "two"])
        log_metric("m", 2)
        return [0.0] * len(completions)

    scores = sum_of(first, second)(["p", "q"], ["a", "b"], {})
    assert scores.extra(0) == {"note": "a", "second/note": "True", "mixed": "1"}
    assert scores.extra(1) == {"note": "b", "second/note": "nan", "mixed": "two"}
    assert scores.beside(0, {"note": 5}) == {"note": 5, "extra/note": "a", "second/note": "True", "mixed": "1"}


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (lambda log_extra, log_metric: log_extra("note", ["a"]), r"logged 1 values of 'note' for 2 samples"),
        (lambda log_extra, log_metric: log_metric("m", float("nan")), r"metric 'm' is nan; it must be a finite number"),
        (lambda log_extra, log_metric: log_metric("m", "1"), r"metric 'm' is '1'; it must be a finite number"),
    ],
)
def test_what_cannot_be_logged_is_an_error(log, message):
    def logs(completions, log_extra, log_metric, **kwargs):
        log(log_extra, log_metric)
        return [0.0] * len(completions)

    with pytest.raises(RewardError, match=message):
        sum_of(logs)(["p", "q"], ["a", "b"], {})


# --- in the stages ---


def test_in_training_it_shows_in_metrics_samples_and_report(tiny_models, pairs, tmp_path):
    config = make_config(
        tiny_models["gpt2"],
        pairs,
        output_dir=str(tmp_path / "run"),
        num_updates=2,
        rollout_batch_size=2,
        rewards=[RewardSpec(path=f"trl_rewards.{name}") for name in ("keeps_count", "says_nothing")],
    )
    run_ppo(config)
    folder = tmp_path / "run"
    metrics, samples = read_jsonl(folder / "metrics.jsonl"), read_jsonl(folder / "samples.jsonl")
    assert [row["reward_metric/progress"] for row in metrics] == [0.0, 0.5]
    for row in samples:
        assert row["reward/keeps_count"] == row["length"]
        assert row["reward/says_nothing"] is None
        assert row["verdict"] == f"{row['length']} tokens at step {row['step'] - 1}"
        assert isinstance(row["first_token"], int)
    write_report([folder], folder / "report.html")
    assert f"<td><bdi>{samples[0]['verdict']}</bdi></td>" in (folder / "report.html").read_text()


def test_a_conversation_reaches_rewards_as_turns_in_training_and_in_score(tiny_models, tmp_path):
    rows = [
        {"prompt": TURNS, "completion": said("Ho")},
        {"prompt": [*TURNS, *said("Ho"), TURNS[1]], "completion": "Hu"},
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rewards = [
        RewardSpec(path="trl_rewards.of_the_turns"),
        RewardSpec(path="length"),
        RewardSpec(path="react_heuristic"),
    ]
    run_score(ScoreConfig(input=str(data), output=str(tmp_path / "scored.jsonl"), rewards=rewards))
    scored = read_jsonl(tmp_path / "scored.jsonl")
    assert [row["rewards"] for row in scored] == [
        {"of_the_turns": 22.0, "length": 1.0, "react_heuristic": 1.0},
        {"of_the_turns": 42.0, "length": 1.0, "react_heuristic": 1.0},
    ]
    config = make_config(
        tiny_models["gpt2"], str(data), output_dir=str(tmp_path / "run"), num_updates=1, rewards=rewards
    )
    run_ppo(config)
    for row in read_jsonl(tmp_path / "run" / "samples.jsonl"):
        assert row["reward/of_the_turns"] - len(row["response"]) in (20.0, 40.0)
