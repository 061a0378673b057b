"""What a model said to the bare tasks, in sentences: the stuff of the demonstrations."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from instruction_data.tasks import FORMS

FILE = Path(__file__).resolve().parents[1] / "replies.jsonl"
"""A reply of SmolLM2-135M-Instruct about each subject of the training side; `prompt` and `completion`."""
MARKER = re.compile(r"^(?:#+|[-*•]|\d+[.)])\s+")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'])")
SHORTEST, LONGEST = 4, 30  # words


class Task(NamedTuple):
    """A bare task: its form, what it is about, and how it asks."""

    form: str
    subject: str
    prompt: str


def bare_tasks() -> list[Task]:
    """Every task of the training side."""
    return [
        Task(form.name, subject, wording.format(subject))
        for form in FORMS
        for subject in form.subjects_of(held_out=False)
        for wording in form.wordings
    ]


def read_replies() -> dict[tuple[str, str], list[str]]:
    """The sentences of the reply about each subject, by form and subject."""
    rows = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
    said = {row["prompt"]: row["completion"] for row in rows}
    return {(task.form, task.subject): sentences(said[task.prompt]) for task in bare_tasks() if task.prompt in said}


def sentences(reply: str) -> list[str]:
    """Whole sentences of plain text, none of them twice: no Markdown, headings, greetings or blanks to fill in."""
    found: list[str] = []
    for line in reply.splitlines():
        plain = MARKER.sub("", line.strip()).replace("*", "").replace("_", "")
        found += [_closed(part.strip()) for part in SENTENCE_END.split(plain)]
    return list(dict.fromkeys(_usable(found)))


def _closed(sentence: str) -> str:
    """A line of verse that ends without a point gets one."""
    text = sentence.rstrip(",;")
    return text if not text or text[-1] in '.!?:"' else f"{text}."


def _usable(found: Iterable[str]) -> Iterable[str]:
    for sentence in found:
        is_whole = sentence[:1].isupper() and sentence.endswith((".", "!", "?"))
        if is_whole and SHORTEST <= len(sentence.split()) <= LONGEST and not re.search(r'["\[\]{}<>|:]', sentence):
            yield sentence
