"""Answers that keep to the instructions of a prompt, made of what a model said to the bare task."""

import json
import re
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any

from instruction_data.conflicts import BULLETS, CAPITAL, JSON, LANGUAGE, LOWERCASE, NO_COMMA, QUOTATION, TITLE, TWO
from instruction_data.constraints import ALONE
from instruction_data.replies import Task, bare_tasks, read_replies

ANSWER = ALONE[1]
USUAL, MOST = (3, 8), 24
"""How many sentences an answer has where nothing is said of it, and how many at most."""
BLANKS = (
    "Ask [name] for more.", "Meet [name] at [place].", "Meet [name] at [place] on [date].",
    "Meet [name] at [place] on [date] or call [number].",
)  # fmt: skip
Row = dict[str, Any]
Follows = Callable[[Row, str], bool]


class Demonstrations:
    """Answers to rows, from replies to the bare tasks; `follows` says whether a text keeps to all of a row."""

    def __init__(self, follows: Follows) -> None:
        self.follows = follows
        self.tasks = {task.prompt: task for task in bare_tasks()}
        self.replies = read_replies()

    def answer(self, row: Row, rng: Random) -> str | None:
        """An answer that follows all of the instructions; None where the replies hold none.

        Languages are left out: the model that wrote the replies hardly knows another than English.
        """
        if ANSWER in row["instruction_id_list"]:
            return f"My answer is {rng.choice(('yes', 'no', 'maybe'))}."
        if LANGUAGE in row["instruction_id_list"]:
            return None
        task = self.task_of(row)
        usual = rng.randint(*USUAL)
        for size in sorted(range(1, MOST), key=lambda n: abs(n - usual)):  # the nearest number that will do
            text = self.attempt(row, task, size, Random(f"{row['prompt']} {size}"))
            if text is not None and self.follows(row, text):
                return text
        return None

    def task_of(self, row: Row) -> Task:
        """The bare task that the prompt begins with."""
        return max((t for p, t in self.tasks.items() if row["prompt"].startswith(p)), key=lambda t: len(t.prompt))

    def attempt(self, row: Row, task: Task, size: int, rng: Random) -> str | None:
        """An answer of about `size` sentences; None if a word that is asked for is in no sentence about such things."""
        asked = dict(zip(row["instruction_id_list"], row["kwargs"], strict=True))
        wanted = {key: value for kwargs in asked.values() for key, value in kwargs.items()}
        own, others = self.material(task, asked, wanted)
        needed = _with_words(asked, [*own, *others])
        if needed is None:
            return None
        text = [*own[:size], *(sentence for sentence in dict.fromkeys(needed) if sentence not in own[:size])]
        if "num_placeholders" in wanted:
            text.append(BLANKS[wanted["num_placeholders"] - 1])
        left = own[size] if len(own) > size else others[0]
        return finished(set(asked), wanted, _marked(text, wanted, rng), task, left) if text else None

    def material(self, task: Task, asked: Row, wanted: Row) -> tuple[list[str], list[str]]:
        """Sentences about the subject, and about others of the form, that break none of the instructions."""
        own = self.replies[task.form, task.subject]
        others = [
            s for (form, subject), said in self.replies.items() if form == task.form if said is not own for s in said
        ]
        few = wanted.get("let_frequency") if wanted.get("let_relation") == "less than" else None
        kept = [[s for s in group if _permitted(s, asked, wanted)] for group in (own, others)]
        return (sorted(kept[0], key=lambda s: s.lower().count(wanted["letter"])) if few else kept[0]), kept[1]


def _permitted(sentence: str, asked: Row, wanted: Row) -> bool:
    banned = list(wanted.get("forbidden_words", ()))
    if asked.get("keywords:frequency", {}).get("relation") == "less than":
        banned.append(wanted["keyword"])
    if any(word.lower() in sentence.lower() for word in banned):
        return False
    return wanted.get("capital_relation") != "less than" or not re.search(r"\b[A-Z]+\b", sentence)


def _with_words(asked: Row, sentences: list[str]) -> list[str] | None:
    """Sentences that hold each word that is asked for as often as it must occur; None where one word has too few."""
    counts = dict.fromkeys(asked.get("keywords:existence", {}).get("keywords", ()), 1)
    often = asked.get("keywords:frequency", {})
    if often.get("relation") == "at least":
        counts[often["keyword"]] = often["frequency"]
    needed: list[str] = []
    for word, count in counts.items():
        holding = [sentence for sentence in sentences if re.search(rf"\b{word}", sentence, re.IGNORECASE)]
        if len(holding) < count:
            return None
        needed += holding[:count]
    return needed


def _marked(sentences: list[str], wanted: Row, rng: Random) -> list[str]:
    """Phrases in asterisks, words in capitals, each in a sentence of its own as far as there are enough."""
    marked = list(sentences)
    for at in range(min(wanted.get("num_highlights", 0), len(marked))):
        marked[at] = re.sub(r"(\S+ \S+?)([.!?])$", r"*\1*\2", marked[at])
    if wanted.get("capital_relation") == "at least":
        for at in range(min(wanted["capital_frequency"], len(marked))):
            word = max(re.findall(r"\w+", marked[at]), key=len)
            marked[at] = marked[at].replace(word, word.upper(), 1)
    return marked


def finished(kinds: set[str], wanted: Row, sentences: list[str], task: Task, left: str) -> str:
    """The sentences in the shape, the case and the marks that are asked for; `left` is one for the postscript."""
    text = _shaped(kinds, wanted, sentences)
    if TITLE in kinds:
        text = f"<<{re.sub('^(a|an|the) ', '', task.subject).title()}>>\n\n{text}"
    if "postscript_marker" in wanted:
        text += f"\n\n{wanted['postscript_marker']} {left}"
    if "end_phrase" in wanted:
        text += f"{chr(10) * 2 if chr(10) in text else ' '}{wanted['end_phrase']}"
    if NO_COMMA in kinds:
        text = text.replace(",", "")
    if CAPITAL in kinds:
        text = text.upper()
    if LOWERCASE in kinds:
        text = text.lower()
    if "prompt_to_repeat" in wanted:
        text = f"{wanted['prompt_to_repeat']}\n\n{text}"
    if JSON in kinds:
        text = json.dumps({task.form: text}, indent=2)
    return f'"{text}"' if QUOTATION in kinds else text


def _shaped(kinds: set[str], wanted: Row, sentences: list[str]) -> str:
    if BULLETS in kinds:
        return "\n".join(f"- {part}" for part in _parts(sentences, wanted["num_bullets"]))
    if "num_sections" in wanted:
        numbered = enumerate(_parts(sentences, wanted["num_sections"]), start=1)
        return "\n\n".join(f"{wanted['section_spliter']} {n}\n{part}" for n, part in numbered)
    if TWO in kinds:
        return "\n\n******\n\n".join(_parts(sentences, 2))
    if "num_paragraphs" not in wanted:
        return " ".join(sentences)
    parts = _parts(sentences, wanted["num_paragraphs"])
    if "first_word" not in wanted:
        return "\n\n***\n\n".join(parts)
    nth = wanted["nth_paragraph"] - 1
    if nth < len(parts):
        parts[nth] = f"{wanted['first_word'].capitalize()}, {parts[nth][0].lower()}{parts[nth][1:]}"
    return "\n\n".join(parts)


def _parts(sentences: list[str], number: int) -> list[str]:
    """The sentences in so many parts of about the same size, as far as there are enough."""
    bounds = [round(n * len(sentences) / number) for n in range(number + 1)]
    return [" ".join(sentences[a:b]) for a, b in pairwise(bounds) if a < b]
