"""Rows: a task, one to three instructions that fit together, and the prompt that asks for both."""

import json
from random import Random
from typing import Any

from instruction_data.card import card
from instruction_data.conflicts import contradict
from instruction_data.constraints import ALONE, DRAWS, Constraint, draw
from instruction_data.tasks import FORMS, QUESTIONS
from instruction_data.wordings import WORDINGS

SEED = 2311
SIZES = {"train": 2000, "eval": 200}
ALONE_SHARE = 0.06  # of the rows, for each kind that stands alone
REPEAT, ANSWER = ALONE

Row = dict[str, Any]


def build() -> dict[str, str]:
    """The files of data/instructions by name: both splits and the README."""
    splits = {name: rows(name) for name in SIZES}
    files = {
        f"{name}.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in splits[name]) for name in splits
    }
    return files | {"README.md": card(splits)}


def rows(split: str) -> list[Row]:
    """The rows of a split, no prompt twice; the same ones each time."""
    rng = Random(f"{SEED} {split}")
    held_out = split == "eval"
    by_prompt: dict[str, Row] = {}
    while len(by_prompt) < SIZES[split]:
        row = _row(held_out, rng)
        by_prompt.setdefault(row["prompt"], row)
    return list(by_prompt.values())


def _row(held_out: bool, rng: Random) -> Row:
    chance = rng.random()
    if chance < ALONE_SHARE:
        return _repeat_row(held_out, rng)
    if chance < 2 * ALONE_SHARE:
        return _answer_row(held_out, rng)
    form = rng.choice(FORMS)
    task = rng.choice(form.wordings).format(rng.choice(form.subjects_of(held_out)))
    number = rng.choices((1, 2, 3), weights=(40, 40, 20))[0]
    constraints: list[Constraint] = []
    while len(constraints) < number:  # one after the other, so that a kind that fits few others is as frequent
        longer = [*constraints, draw(rng.choice(list(DRAWS)), form, rng)]
        if not contradict(longer):
            constraints = longer
    rng.shuffle(constraints)
    return _as_row(_prompt(task, constraints, rng), form.name, constraints)


def _prompt(task: str, constraints: list[Constraint], rng: Random) -> str:
    """The task with its constraints behind it: on the same line, on lines of their own, or as a list."""
    texts = [constraint.text for constraint in constraints]
    layout = rng.choice(("line", "line", "lines", "list")) if len(texts) > 1 else rng.choice(("line", "lines"))
    if layout == "list":
        return "\n".join([task, "Rules:", *(f"{n}) {text}" for n, text in enumerate(texts, start=1))])
    return (" " if layout == "line" else "\n").join([task, *texts])


def _repeat_row(held_out: bool, rng: Random) -> Row:
    form = rng.choice(FORMS)
    task = rng.choice(form.wordings).format(rng.choice(form.subjects_of(held_out)))
    constraint = Constraint(REPEAT, {"prompt_to_repeat": task}, rng.choice(WORDINGS[REPEAT]))
    return _as_row(f"{task}\n\n{constraint.text}", form.name, [constraint])


def _answer_row(held_out: bool, rng: Random) -> Row:
    question = rng.choice(QUESTIONS.wordings).format(rng.choice(QUESTIONS.subjects_of(held_out)))
    constraint = Constraint(ANSWER, {}, rng.choice(WORDINGS[ANSWER]))
    return _as_row(_prompt(question, [constraint], rng), QUESTIONS.name, [constraint])


def _as_row(prompt: str, task: str, constraints: list[Constraint]) -> Row:
    return {
        "prompt": prompt,
        "instruction_id_list": [constraint.kind for constraint in constraints],
        "kwargs": [constraint.kwargs for constraint in constraints],
        "task": task,
    }
