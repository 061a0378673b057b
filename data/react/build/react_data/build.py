"""The splits: how many rows each family gives, and how the files are written."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from random import Random

from react_data import families  # noqa: F401  (registers every family)
from react_data.card import bare, card
from react_data.family import FAMILIES, Family, Maker, Pair
from react_data.five import FIVE
from react_data.flaws import preferences
from react_data.jsx import parses
from react_data.phrases import LONGEST, SHORTEST

SEED = "react-1"
SHORT_LIMIT = 330
SHORT_SHORTEST = 110
LONG_LIMIT = 1500
TRAIN_ROWS = {True: 40, False: 29}
EVAL_ROWS = {True: 6, False: 3}
UNSEEN_ROWS = 16
PREFERENCE_ROWS = {True: 120, False: 60}
PREFERENCES, PREFERENCES_EVAL = 5040, 204
ATTEMPTS = 4000

Row = dict[str, str]


def flaw_of(pair: Pair, family: Family) -> str:
    """Why this draw cannot be a row, or "" if it can."""
    if not SHORTEST <= len(pair.prompt) <= LONGEST:
        return f"prompt of {len(pair.prompt)} characters"
    low, high = (SHORT_SHORTEST, SHORT_LIMIT) if family.short else (SHORT_SHORTEST, LONG_LIMIT)
    if not low <= len(pair.completion) <= high:
        return f"completion of {len(pair.completion)} characters"
    return ""


def check(pair: Pair, family: Family) -> None:
    """Raise ValueError if a completion is not TSX or leaves out what its prompt asks for."""
    code = pair.completion.replace("&amp;", "&").lower()
    missing = [word for word in pair.details if word.lower() not in code]
    if missing or not parses(pair.completion) or re.search(r"[ \t]$|\t|\$\w", pair.completion, re.MULTILINE):
        raise ValueError(f"family {family.name}: missing {missing} or no clean TSX:\n{pair.prompt}\n{pair.completion}")


def draw_rows(family: Family, count: int) -> list[Pair]:
    """`count` pairs of one family with distinct prompts and completions, most of them distinct in structure."""
    rng = Random(f"{SEED}/{family.name}")
    prompts, bares, pairs = set[str](), set[str](), list[Pair]()
    for attempt in range(ATTEMPTS):
        pair = family.draw(Maker(rng, family.name, family.short, closing=len(pairs) % 2 == 0))
        key = bare(pair.completion)
        patient = attempt < ATTEMPTS // 4
        if flaw_of(pair, family) or pair.prompt in prompts or (patient and key in bares):
            continue
        if any(pair.completion == other.completion for other in pairs):
            continue
        check(pair, family)
        prompts.add(pair.prompt)
        bares.add(key)
        pairs.append(pair)
        if len(pairs) == count:
            return pairs
    raise ValueError(f"family {family.name} gave only {len(pairs)} of {count} rows")


def by_hash(rows: Iterable[Row]) -> list[Row]:
    """A fixed shuffle that a new family does not disturb: rows in the order of their prompts' hashes."""
    return sorted(rows, key=lambda row: hashlib.sha256(row["prompt"].encode()).digest())


def to_rows(pairs: Iterable[tuple[str, Pair]]) -> list[Row]:
    """Rows of a file, shuffled."""
    return by_hash({"prompt": p.prompt, "completion": p.completion, "family": name} for name, p in pairs)


def jsonl(rows: Iterable[Row]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def build(log: Callable[[str], None] = lambda line: None) -> dict[str, str]:
    """Every file of the data set: name -> text."""
    train, held_out, unseen, compared = (list[tuple[str, Pair]]() for _ in range(4))
    for family in FAMILIES.values():
        if family.unseen:
            unseen += [(family.name, pair) for pair in draw_rows(family, UNSEEN_ROWS)]
            continue
        for_eval, for_train = EVAL_ROWS[family.short], TRAIN_ROWS[family.short]
        count = for_eval + for_train + PREFERENCE_ROWS[family.short]
        pairs = [(family.name, pair) for pair in draw_rows(family, count)]
        held_out += pairs[:for_eval]
        train += pairs[for_eval : for_eval + for_train]
        compared += pairs[for_eval + for_train :]
    log(f"{len(train)} training pairs from {len(FAMILIES)} families")
    splits = {
        "train.jsonl": to_rows(train),
        "eval.jsonl": to_rows(held_out),
        "eval_new_families.jsonl": to_rows(unseen),
    }
    sound = to_rows(compared)
    _require_disjoint({**splits, "preferences.jsonl": sound})
    details = {pair.prompt: pair.details for _, pair in (*compared, *held_out)}
    splits["preferences.jsonl"] = by_hash(preferences(sound, details, PREFERENCES, SEED))
    splits["preferences_eval.jsonl"] = by_hash(preferences(splits["eval.jsonl"], details, PREFERENCES_EVAL, SEED))
    splits["five.jsonl"] = FIVE
    return {name: jsonl(rows) for name, rows in splits.items()} | {"README.md": card(splits, SHORT_LIMIT)}


def _require_disjoint(splits: dict[str, list[Row]]) -> None:
    for column in ("prompt", "completion"):
        texts = [row[column] for rows in splits.values() for row in rows]
        twice = sorted({text for text in texts if texts.count(text) > 1}) if len(set(texts)) < len(texts) else []
        if twice:
            raise ValueError(f"two rows share the {column} {twice[0]!r}")
