"""The general rewards: length, regex, keywords, repetition and JSON, with scores worked out by hand."""

import sys

import pytest

from rlhf.rewards import RewardError, RewardSpec, RewardSum, load_reward


def score(name, completion, **args):
    rewards = RewardSum.from_specs([RewardSpec(path=name, args=args)])
    return rewards(["p"], [completion], {}).total[0]


def explain(name, completion, **args):
    return load_reward(RewardSpec(path=name, args=args)).explain("p", completion)


@pytest.mark.parametrize(
    ("length", "expected"), [(0, 0.6), (2, 0.8), (4, 1.0), (6, 1.0), (9, 0.7), (16, 0.0), (50, 0.0)]
)
def test_length(length, expected):
    assert score("length", "x" * length, minimum=4, maximum=6, margin=10) == pytest.approx(expected)


def test_length_explains_itself():
    assert explain("length", "x" * 9, minimum=4, maximum=6) == "9 characters, 3 outside 4 to 6"


@pytest.mark.parametrize(
    ("args", "completion", "expected"),
    [
        ({"pattern": "<answer>.*</answer>"}, "so <answer>4</answer>", 1.0),
        ({"pattern": "<answer>.*</answer>"}, "<answer>\n</answer>", 0.0),
        ({"pattern": "(?s)<answer>.*</answer>"}, "<answer>\n</answer>", 1.0),
        ({"pattern": r"\A\d+\Z"}, "12 apples", 0.0),
    ],
)
def test_regex(args, completion, expected):
    assert score("regex", completion, **args) == expected


def test_regex_explains_itself():
    assert explain("regex", "a 42 b", pattern=r"\d+") == "found '42'"
    assert explain("regex", "", pattern=r"\d+") == r"no match of '\\d+'"


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("a LIST of buttons", 0.5),
        ("listen to the C++ list", 2 / 2),
        ("listen to the C++", 0.5),
        ("the C++ list with var x", 0.0),
        ("the C++ list of variables", 1.0),
        ("", 0.0),
    ],
)
def test_keywords(completion, expected):
    assert score("keywords", completion, words=["list", "C++"], forbidden=["var"]) == expected


def test_keywords_explain_themselves():
    args = {"words": ["list", "key"], "forbidden": ["var"]}
    assert explain("keywords", "var list", **args) == "missing: key; forbidden: var"
    assert explain("keywords", "list key", **args) == "missing: none; forbidden: none"


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("a b c d", 0.0),
        ("a b a b a b", -(1 - 2 / 5)),  # ab ba ab ba ab
        ("a a a a a", -(1 - 1 / 4)),
        ("f(f(f(", -(1 - 2 / 5)),  # without spaces: f ( f ( f (
        ("a", 0.0),
        ("", 0.0),
    ],
)
def test_repetition(completion, expected):
    assert score("repetition", completion, n=2) == pytest.approx(expected)


def test_repetition_explains_itself():
    assert explain("repetition", "a b a b", n=2) == "2 distinct of 3 runs of 2 tokens; most often, 2x: a b"
    assert explain("repetition", "a", n=2) == "shorter than 2 tokens"


SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


@pytest.mark.parametrize(
    ("completion", "plain", "with_schema"),
    [
        ('{"age": 3}', 1.0, 1.0),
        ('Sure:\n```json\n{"age": 3}\n```', 1.0, 1.0),
        ('{"age": "3"}', 1.0, 0.5),
        ("[]", 1.0, 0.5),
        ('{"age": 3', 0.0, 0.0),
        ("NaN", 0.0, 0.0),
        ("", 0.0, 0.0),
        ("[" * 100_000, 0.0, 0.0),
        ("1" * 10_000, 0.0, 0.0),  # more digits than Python converts
        ("\ud800", 0.0, 0.0),
    ],
)
def test_json_valid(completion, plain, with_schema):
    pytest.importorskip("jsonschema")
    assert score("json_valid", completion) == plain
    assert score("json_valid", completion, schema=SCHEMA) == with_schema


def test_json_valid_explains_itself():
    pytest.importorskip("jsonschema")
    assert explain("json_valid", "{}", schema=SCHEMA) == "violates the schema: 'age' is a required property"
    assert explain("json_valid", "{").startswith("not JSON: Expecting property name")


def test_a_schema_needs_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema", None)  # as if it were not installed
    with pytest.raises(RewardError, match="a schema needs the library jsonschema: pip install jsonschema"):
        load_reward(RewardSpec(path="json_valid", args={"schema": {}}))
    assert score("json_valid", "{}") == 1.0


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("length", {"maximum": 3, "minimum": 4}, "need 0 <= minimum <= maximum"),
        ("length", {"maximum": 3, "margin": 0}, "margin > 0"),
        ("length", {"maximun": 3}, "args has no 'maximun'; did you mean 'maximum'"),
        ("regex", {}, "args must give pattern"),
        ("regex", {"pattern": "("}, "pattern '\\(' does not compile"),
        ("keywords", {"words": []}, "need at least one word"),
        ("keywords", {"words": ["a", ""]}, "none empty"),
        ("repetition", {"n": 0}, "n 0 must be at least 1"),
        ("json_valid", {"schema": {"type": "no type"}}, "the schema is wrong: 'no type' is not valid"),
    ],
)
def test_wrong_arguments_are_refused(name, args, message):
    if name == "json_valid":
        pytest.importorskip("jsonschema")
    with pytest.raises(RewardError, match=message):
        load_reward(RewardSpec(path=name, args=args))
