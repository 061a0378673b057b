"""The four accuracies of verifiable instructions, worked out by hand."""

import json

import pytest

from rlhf.errors import UserError
from rlhf.rewards.ifeval.accuracy import (
    accuracy_table,
    follows,
    follows_loosely,
    loose_variants,
    measure_accuracy,
    measure_file,
)
from rlhf.rewards.ifeval.registry import read_instructions

TWO = ["punctuation:no_comma", "length_constraints:number_words"]
KWARGS = [{}, {"num_words": 4, "relation": "at least"}]


def test_loose_variants():
    assert loose_variants("*a*\nb\n\nc") == ["*a*\nb\n\nc", "a\nb\n\nc", "b\n\nc", "b\n\nc", "*a*\nb", "a\nb", "b", "b"]


def test_loose_forgives_an_introduction():
    (instruction,) = read_instructions(["detectable_format:json_format"], [{}])
    response = "Of course:\n[1]\nIs that all?"
    assert (follows(instruction, response), follows_loosely(instruction, response)) == (False, True)
    assert not follows_loosely(instruction, "Of\ncourse:\n[1]")


ROWS = [
    {"response": "Only three words", "instruction_id_list": TWO, "kwargs": KWARGS},
    {"response": "Well,\nfour words are here", "instruction_id_list": TWO, "kwargs": KWARGS},
    {"response": "Fine.", "instruction_id_list": TWO[:1], "kwargs": [{}]},
]


def test_accuracies():
    accuracy = measure_accuracy(ROWS)
    assert (accuracy.prompts.total, accuracy.instructions.total) == (3, 5)
    assert (accuracy.prompts.strict, accuracy.prompts.loose) == pytest.approx((1 / 3, 2 / 3))
    assert (accuracy.instructions.strict, accuracy.instructions.loose) == pytest.approx((3 / 5, 4 / 5))
    assert (accuracy.strict, accuracy.loose) == pytest.approx(((1 / 3 + 3 / 5) / 2, (2 / 3 + 4 / 5) / 2))
    assert accuracy_table(accuracy) == [
        ["prompts (3)", "33.3", "66.7"],
        ["instructions (5)", "60.0", "80.0"],
        ["average of both", "46.7", "73.3"],
        ["length_constraints:number_words (2)", "50.0", "50.0"],
        ["punctuation:no_comma (3)", "66.7", "100.0"],
    ]


def test_accuracies_of_a_file(tmp_path):
    file = tmp_path / "responses.jsonl"
    file.write_text("".join(json.dumps({"prompt": "p", **row}) + "\n" for row in ROWS), encoding="utf-8")
    assert measure_file(file) == measure_accuracy(ROWS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there are no rows"),
        ('{"response": "a", "instruction_id_list": ["x"], "kwargs": [{}]}', "row 1: unknown instruction 'x'"),
        ('{"instruction_id_list": ["x"], "kwargs": [{}]}', "row 1: 'response' is NoneType; it must be text"),
        ("[1]", "row 1: the row is list; it must be an object"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, message):
    file = tmp_path / "responses.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=f"responses.jsonl: {message}"):
        measure_file(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none.jsonl does not exist"):
        measure_file(tmp_path / "none.jsonl")
