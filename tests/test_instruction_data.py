"""The prompts with verifiable instructions: rebuilt byte for byte, disjoint, sound, and each of them satisfiable."""

import json
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import overlap
import pytest
from instruction_answers import answers
from instruction_data import compose, tasks, wordings
from instruction_data.conflicts import (
    BULLETS,
    CAPITAL,
    END,
    EXISTENCE,
    FORBIDDEN,
    LOWERCASE,
    NO_COMMA,
    QUOTATION,
    WORDS,
    contradict,
)
from instruction_data.constraints import ALONE, Constraint

from rlhf.data.examples import load_examples
from rlhf.rewards.ifeval import KINDS
from rlhf.rewards.ifeval.registry import read_instructions

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data" / "instructions"


@cache
def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def libraries():
    """Skips where the extra [instructions] is not installed."""
    for name in ("langdetect", "nltk", "punkt"):
        pytest.importorskip(name)


def test_the_script_rebuilds_the_shipped_files_byte_for_byte():
    files = compose.build()
    assert sorted(files) == sorted(path.name for path in DATA.iterdir() if path.is_file())
    for name, text in files.items():
        assert (DATA / name).read_bytes() == text.encode(), f"{name}: run python data/rebuild.py instructions"


def test_check_names_the_file_that_differs(tmp_path):
    for path in DATA.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "eval.jsonl").write_text("{}\n", encoding="utf-8")
    script = [sys.executable, str(DATA.parent / "rebuild.py"), "instructions"]
    done = subprocess.run([*script, "--check", "--output_dir", str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"{tmp_path / 'eval.jsonl'}: differs from the rebuild\n")


@pytest.mark.parametrize(("name", "size"), [("train", 2000), ("eval", 200)])
def test_the_rows_are_data_of_the_pipeline(libraries, name, size):
    examples = load_examples(str(DATA / f"{name}.jsonl"), "train")
    assert len({example.prompt for example in examples}) == size
    for example in examples:
        columns = example.columns
        assert 1 <= len(read_instructions(columns["instruction_id_list"], columns["kwargs"])) <= 3


def test_every_kind_is_asked_for_often_enough_to_learn_it():
    counts = Counter(kind for row in rows("train") for kind in row["instruction_id_list"])
    assert set(counts) == set(KINDS)
    assert min(counts.values()) >= 40
    assert set(KINDS) == {kind for row in rows("eval") for kind in row["instruction_id_list"]}


def test_several_wordings_for_each_kind():
    assert {key.split(" ")[0] for key in wordings.WORDINGS} == set(KINDS)
    assert all(len(set(texts)) >= 4 for texts in wordings.WORDINGS.values())


def test_no_task_of_the_evaluation_is_trained_on():
    for form in (*tasks.FORMS, tasks.QUESTIONS):
        assert len(set(form.subjects)) == len(form.subjects) == 24, form.name
        seen, held_out = form.subjects_of(False), form.subjects_of(True)
        assert not set(seen) & set(held_out)
        for subject in held_out:
            asked = [wording.format(subject) for wording in form.wordings]
            assert not [row for row in rows("train") if row["prompt"].startswith(tuple(asked))]


@pytest.mark.parametrize("name", ["train", "eval"])
def test_the_instructions_of_each_row_can_all_be_followed_at_once(libraries, name):
    hopeless = []
    for row in rows(name):
        instructions = read_instructions(row["instruction_id_list"], row["kwargs"])
        attempts = answers(row["instruction_id_list"], row["kwargs"])
        if not any(all(each.evaluate(attempt).followed for each in instructions) for attempt in attempts):
            hopeless.append(row["prompt"])
    assert not hopeless, f"{len(hopeless)} rows: {hopeless[:5]}"


def test_a_contradiction_has_no_answer(libraries):
    ids = ["length_constraints:number_words", "length_constraints:number_sentences"]
    kwargs = [{"num_words": 3, "relation": "less than"}, {"num_sentences": 8, "relation": "at least"}]
    instructions = read_instructions(ids, kwargs)
    assert not any(all(each.evaluate(attempt).followed for each in instructions) for attempt in answers(ids, kwargs))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((NO_COMMA, {}), (QUOTATION, {}), False),
        ((CAPITAL, {}), (LOWERCASE, {}), True),
        ((NO_COMMA, {}), (NO_COMMA, {}), True),
        ((EXISTENCE, {"keywords": ["kite"]}), (FORBIDDEN, {"forbidden_words": ["kite"]}), True),
        ((EXISTENCE, {"keywords": ["kite"]}), (FORBIDDEN, {"forbidden_words": ["rain"]}), False),
        ((END, {"end_phrase": "Take time."}), (FORBIDDEN, {"forbidden_words": ["time"]}), True),
        ((BULLETS, {"num_bullets": 3}), (WORDS, {"num_words": 20, "relation": "less than"}), True),
        ((BULLETS, {"num_bullets": 3}), (WORDS, {"num_words": 40, "relation": "less than"}), False),
        ((QUOTATION, {}), (END, {"end_phrase": "Take care."}), True),
    ],
)
def test_contradictions(first, second, expected):
    constraints = [Constraint(kind, kwargs, "") for kind, kwargs in (first, second)]
    assert contradict(constraints) is contradict(constraints[::-1]) is expected


def test_some_kinds_stand_alone():
    for row in rows("train"):
        assert len(row["instruction_id_list"]) == 1 or not set(ALONE) & set(row["instruction_id_list"])


def test_overlap_ignores_case_and_punctuation():
    shared = overlap.shared_runs(["a b c d e f g h i"], ["X. B, c; D e (f) g! H? I y", "other words"])
    assert list(shared) == ["b c d e f g h i"]
    assert not overlap.shared_runs(["a b c d e f g h"], ["a b c d e f g x h"])


def test_overlap_exits_with_1_if_a_prompt_is_shared(tmp_path):
    file = tmp_path / "prompts.jsonl"
    command = [sys.executable, str(DATA / "build" / "overlap.py"), str(file)]
    file.write_text(json.dumps({"prompt": "Nothing of the kind is asked for anywhere else."}) + "\n", encoding="utf-8")
    assert subprocess.run(command, capture_output=True).returncode == 0
    file.write_text(json.dumps({"prompt": rows("train")[0]["prompt"].upper()}) + "\n", encoding="utf-8")
    assert subprocess.run(command, capture_output=True).returncode == 1
