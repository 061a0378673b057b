"""The reward contract: loading by name, the weighted sum, and what is refused."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from rlhf.rewards import RewardError, RewardSpec, RewardSum, Span, SpanReward, WeightedReward, load_reward


def lengths(prompts, completions, **columns):
    return [len(completion) for completion in completions]


def scaled(prompts, completions, factor, **columns):
    return [factor * len(completion) for completion in completions]


class Marks:
    """1.0, with 0.5 on the first character, if the mark occurs; else does not apply."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __call__(self, prompts, completions, **columns):
        return [SpanReward(1.0, (Span(0, 1, 0.5),)) if self.mark in text else None for text in completions]

    def explain(self, prompt, completion, **columns):
        return f"looks for {self.mark}"


def returning(*items):
    return RewardSum([WeightedReward("fixed", lambda prompts, completions, **columns: list(items))])


def test_sum_is_weighted_and_none_counts_as_zero():
    rewards = RewardSum([WeightedReward("length", lengths, 0.5), WeightedReward("mark", Marks("!"), -2.0)])
    scores = rewards(["p", "q"], ["abc", "ab!d"], {})
    assert scores.total == [1.5, 2.0 - 2.0]
    assert scores.components == {"length": [3.0, 4.0], "mark": [None, 1.0]}
    assert scores.spans == [[], [Span(0, 1, -1.0)]]
    assert scores.span_total == [0.0, -1.0]
    assert scores.component_means() == {"length": 3.5, "mark": 1.0}


def test_a_component_that_applies_nowhere_has_no_mean():
    scores = RewardSum([WeightedReward("mark", Marks("!"))])(["p"], ["a"], {})
    assert scores.total == [0.0]
    assert scores.component_means() == {}


def test_columns_reach_the_reward_and_cannot_be_spoilt_for_the_next():
    def greedy(prompts, completions, reference, **columns):
        scores = [float(len(text)) for text in reference]
        reference.clear()
        completions.clear()
        return scores

    scores = RewardSum([WeightedReward("a", greedy), WeightedReward("b", greedy)])(["p"], ["c"], {"reference": ["xy"]})
    assert scores.components == {"a": [2.0], "b": [2.0]}


def test_an_empty_batch_scores_nothing():
    scores = RewardSum([WeightedReward("length", lengths)])([], [], {})
    assert (scores.total, scores.components, scores.spans) == ([], {"length": []}, [])


@pytest.mark.parametrize(
    "item", [2, 2.0, np.float32(2), np.int64(2), np.array(2.0), torch.tensor(2.0), torch.tensor(2, dtype=torch.int32)]
)
def test_any_kind_of_number_is_a_score(item):
    total = returning(item)(["p"], ["c"], {}).total
    assert total == [2.0]
    assert type(total[0]) is float


@pytest.mark.parametrize("output", [np.array([1.0, 2.0]), torch.tensor([1.0, 2.0]), (1.0, 2.0)])
def test_scores_may_come_as_an_array(output):
    rewards = RewardSum([WeightedReward("array", lambda **batch: output)])
    assert rewards(["p", "q"], ["c", "d"], {}).total == [1.0, 2.0]


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        ([1.0], "returned 1 scores for 2 samples"),
        ([1.0, 2.0, 3.0], "returned 3 scores for 2 samples"),
        ([1.0, float("nan")], "returned the score nan"),
        ([1.0, float("-inf")], "returned the score -inf"),
        ([1.0, 10**400], "returned the score inf"),
        ([1.0, torch.tensor(float("nan"))], "returned the score nan"),
        ([1.0, True], "returned 'True', a bool, as a score"),
        ([1.0, np.bool_(True)], "returned 'True', a bool, as a score"),
        ([1.0, torch.tensor(True)], r"returned 'tensor\(True\)', a Tensor, as a score"),
        ([1.0, "0.5"], "returned '0.5', a str, as a score"),
        ([1.0, [0.5]], r"returned '\[0.5\]', a list, as a score"),
        ([1.0, torch.tensor([0.5])], "a Tensor, as a score"),
        ([1.0, 1j], "a complex, as a score"),
        ([1.0, SpanReward(float("inf"))], "returned the score inf"),
        ([1.0, SpanReward(1.0, (Span(0, 3, float("nan")),))], "returned the score nan"),
        ([1.0, SpanReward(1.0, (Span(0, 4, 1.0),))], "gave a span 0:4 outside its 3 characters"),
        ([1.0, SpanReward(1.0, (Span(2, 2, 1.0),))], "gave a span 2:2 outside its 3 characters"),
        ([1.0, SpanReward(1.0, (Span(-1, 2, 1.0),))], "gave a span -1:2 outside its 3 characters"),
    ],
)
def test_a_bad_score_names_the_reward_the_prompt_and_the_completion(items, problem):
    with pytest.raises(RewardError, match=problem) as caught:
        returning(*items)(["ask one", "ask two"], ["one", "two"], {})
    message = str(caught.value)
    sample = "one" if "samples" in problem else "two"
    assert "reward 'fixed'" in message
    assert f"prompt 'ask {sample}', completion '{sample}'" in message
    assert "\n" not in message


@pytest.mark.parametrize("output", [None, 1.0, "12", {"a": 1, "b": 2}, torch.tensor(1.0), np.float64(1)])
def test_anything_but_a_list_is_refused(output):
    rewards = RewardSum([WeightedReward("odd", lambda **batch: output)])
    with pytest.raises(RewardError, match=rf"reward 'odd' returned a {type(output).__name__} instead of a list"):
        rewards(["p", "q"], ["c", "d"], {})


@pytest.mark.parametrize("culprit", range(5))
def test_an_exception_names_the_sample_that_caused_it(culprit):
    def fragile(prompts, completions, **columns):
        if "bad" in completions:
            raise KeyError("first line\nsecond line")
        return [0.0] * len(prompts)

    completions = ["good"] * 5
    completions[culprit] = "bad"
    with pytest.raises(RewardError) as caught:
        RewardSum([WeightedReward("fragile", fragile)])([f"p{i}" for i in range(5)], completions, {})
    message = str(caught.value)
    assert message.startswith("reward 'fragile' raised KeyError: ")
    assert message.endswith(f"(sample {culprit}: prompt 'p{culprit}', completion 'bad')")
    assert "\n" not in message
    assert isinstance(caught.value.__cause__, KeyError)


def test_long_texts_are_cut_in_messages():
    with pytest.raises(RewardError) as caught:
        returning("x" * 10_000)(["p" * 10_000], ["c\n" * 10_000], {})
    assert len(str(caught.value)) < 500


def test_inputs_of_different_length_are_refused():
    rewards = RewardSum([WeightedReward("length", lengths)])
    with pytest.raises(ValueError, match="1 prompts but 2 completions"):
        rewards(["p"], ["c", "d"], {})
    with pytest.raises(ValueError, match="1 prompts but 0 reference"):
        rewards(["p"], ["c"], {"reference": []})


def test_names_must_differ_and_there_must_be_one():
    with pytest.raises(RewardError, match="two rewards are called 'a'"):
        RewardSum([WeightedReward("a", lengths), WeightedReward("a", lengths)])
    with pytest.raises(RewardError, match="no rewards are given"):
        RewardSum([])


def test_explain_lists_every_component():
    rewards = RewardSum([WeightedReward("length", lengths, 0.5), WeightedReward("mark", Marks("!"))])
    assert rewards.explain("p", "abc", {}) == (
        "length (weight 0.5): 3.0000\nmark (weight 1): -\n  looks for !\ntotal: 1.5000"
    )


# --- loading ---------------------------------------------------------------------------------------------------


def test_a_function_gets_its_arguments_at_each_call(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    function = load_reward(RewardSpec(path="test_rewards.scaled", args={"factor": 3}))
    assert function(prompts=["p"], completions=["ab"]) == [6]


def test_a_class_is_constructed_with_its_arguments(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    rewards = RewardSum.from_specs([RewardSpec(path="test_rewards.Marks", args={"mark": "?"}, weight=2.0)])
    assert rewards(["p"], ["?"], {}).components == {"Marks": [1.0]}
    assert rewards(["p"], ["?"], {}).total == [2.0]


@pytest.mark.parametrize(
    ("path", "args", "message"),
    [
        ("react_heurstic", {}, "unknown reward 'react_heurstic': did you mean 'react_heuristic'? use one of"),
        ("rlhf.rewards.react_ful", {}, "did you mean 'rlhf.rewards.react_full'?"),
        ("rlhf.rewards.react.full.ReactFul", {}, "did you mean 'rlhf.rewards.react.full.ReactFull'?"),
        ("no_such_module.f", {}, "cannot import 'no_such_module': ModuleNotFoundError"),
        ("math.no_such_function", {}, "module 'math' has no 'no_such_function'"),
        ("math.pi", {}, "reward 'math.pi' cannot be called: it is a float"),
        ("math.pi", {"a": 1}, "reward 'math.pi' cannot be called: it is a float"),
        ("react_parses", {"penalty": 1}, "args has no 'penalty'; did you mean 'error_penalty'? it takes: error"),
        ("regex", {}, "reward 'regex': args must give pattern"),
        ("math.cosh2", {}, "module 'math' has no 'cosh2'; did you mean 'cosh'?"),
        ("react_parses", {"error_penalty": 0.3}, "error_penalty 0.3 must be finite and at most 0"),
        (".f", {}, "unknown reward '.f'"),
        ("", {}, "unknown reward ''"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_in_one_line(path, args, message):
    with pytest.raises(RewardError) as caught:
        load_reward(RewardSpec(path=path, args=args))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_weight_must_be_finite():
    with pytest.raises(RewardError, match="weight nan is not a finite number"):
        RewardSpec(path="react_heuristic", weight=float("nan"))


def test_an_argument_that_hides_a_column_is_refused(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    rewards = RewardSum.from_specs([RewardSpec(path="test_rewards.scaled", args={"factor": 3})])
    with pytest.raises(RewardError, match="argument 'factor' is also a column of the data"):
        rewards(["p"], ["c"], {"factor": [1]})


def test_specs_come_from_yaml(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(
        "rewards:\n"
        "  - {path: react_heuristic}\n"
        "  - {path: my_rewards.contains, weight: 0.5, name: has_key, args: {words: [key], 'at': 1e-3}}\n"
    )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--rewards", type=list[RewardSpec])
    parser.add_argument("--config", action="config")
    parsed = parser.instantiate(parser.parse_args(["--config", str(config)])).rewards
    assert parsed == [
        RewardSpec(path="react_heuristic"),
        RewardSpec(path="my_rewards.contains", weight=0.5, name="has_key", args={"words": ["key"], "at": 1e-3}),
    ]
    assert [spec.metric_name for spec in parsed] == ["react_heuristic", "has_key"]


def in_subprocess(code, folder):
    # -P: as in a console script, the current folder is not on the path.
    return subprocess.run([sys.executable, "-P", "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def test_a_module_in_the_current_folder_is_found(tmp_path):
    (tmp_path / "my_rewards.py").write_text(
        "def one(prompts, completions, **columns):\n    return [1] * len(prompts)\n"
    )
    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')\n")
    code = (
        "from rlhf.rewards import RewardSpec, RewardSum\n"
        "print(RewardSum.from_specs([RewardSpec(path='my_rewards.one')])(['p'], ['c'], {}).total)\n"
        "import json"
    )
    done = in_subprocess(code, tmp_path)
    assert (done.stdout, done.returncode) == ("[1.0]\n", 0), done.stderr


def test_the_package_and_its_builtins_load_no_heavy_library(tmp_path):
    code = (
        "import importlib, sys\n"
        "from rlhf.rewards import BUILTINS, RewardSpec, RewardSum\n"
        "for path in BUILTINS.values(): importlib.import_module(path.rpartition('.')[0])\n"
        "RewardSum.from_specs([RewardSpec(path='react_static')])(['p'], ['c'], {'reference': ['r']})\n"
        "print({'torch', 'numpy', 'transformers', 'trl', 'peft'} & sys.modules.keys())"
    )
    done = in_subprocess(code, tmp_path)
    assert done.stdout == "set()\n", done.stderr
