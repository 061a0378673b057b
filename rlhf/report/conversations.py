"""Stored episodes of several turns: who said what, what each turn earned, and how much better it was than expected."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rlhf.errors import UserError
from rlhf.report.compare import Group
from rlhf.report.foreign import STORED, is_list, is_number, is_text, require_tensors
from rlhf.report.html import Markup, element
from rlhf.report.inspector import read_tensors
from rlhf.report.load import ROWS_FILE, TENSORS_FILE, Row, read_rows

if TYPE_CHECKING:
    import numpy as np

SHOWN = 3  # episodes of an update
NEEDED = ("response_mask", "advantages", "old_values", "scores")


class Spoken(NamedTuple):
    """A turn of the model: its tokens with their advantages, the value before it if there is any, what it earned."""

    tokens: list[str]
    advantages: list[float]
    value: float | None
    reward: float


def conversations(groups: list[Group]) -> list[Markup]:
    """Episodes of the first and of the last stored update of each group's first run; none without any."""
    cards = []
    for group in groups:
        rollouts = group.runs[0].rollouts
        for step in dict.fromkeys([min(rollouts), max(rollouts)] if rollouts else []):
            label = f"{group.label}, update {step}" if len(groups) > 1 else f"update {step}"
            cards += [card(label, *episode) for episode in episodes_of(rollouts[step])]
    return cards


def episodes_of(folder: Path) -> Iterator[tuple[Row, list[Spoken], float]]:
    """The episodes of most turns in a stored rollout: row, the model's turns, and the largest advantage of all."""
    rows = read_rows(folder / ROWS_FILE, STORED)
    if not any("episode" in row for row in rows):
        return
    tensors = read_tensors(folder)
    require_tensors(folder / TENSORS_FILE, tensors, len(rows), list(NEEDED))
    finite = [abs(x) for x in tensors["advantages"].flatten().tolist() if math.isfinite(x)]
    largest = max(finite, default=0.0) or 1.0
    for number, row in enumerate(rows):
        require_episode(folder / ROWS_FILE, number + 1, row.get("episode"))
    for number in longest(rows):
        row = rows[number]
        spoken = list(turns_of(row, {name: tensor[number] for name, tensor in tensors.items() if name in NEEDED}))
        if len(spoken) != len(row["episode"]["rewards"]):
            raise UserError(f"{folder}: row {number + 1} has {len(spoken)} turns of its own; remove that folder")
        yield row, spoken, largest


def longest(rows: list[Row]) -> list[int]:
    """Where the episodes of most turns stand, of equal ones the first."""
    by_turns = sorted(range(len(rows)), key=lambda number: -len(rows[number]["episode"]["rewards"]))
    return sorted(by_turns[:SHOWN])


def require_episode(file: Path, number: int, episode: Any) -> None:
    """Raise UserError for anything but an episode as a run writes it."""
    given: dict[str, Any] = episode if isinstance(episode, dict) else {}
    messages: Any = given.get("messages")
    rewards: Any = given.get("rewards")
    said = [m for m in messages if isinstance(m, dict)] if is_list(messages) else []
    is_whole = (
        is_list(messages)
        and is_list(rewards)
        and len(said) == len(messages)
        and all(is_text(m.get("role")) and is_text(m.get("content")) for m in said)
        and all(is_number(reward) for reward in rewards)
        and sum(m.get("role") == "assistant" for m in said) == len(rewards)
    )
    if not is_whole:
        raise UserError(f"{file}, row {number}: episode is {episode!r:.40}; it must be one as a run writes it")


def turns_of(row: Row, tensors: "dict[str, np.ndarray]") -> Iterator[Spoken]:
    """The stretches of the response mask, which are the model's turns."""
    own = tensors["response_mask"].astype(bool).tolist()
    rewards = iter(row["episode"]["rewards"])
    values = tensors["old_values"]
    start = 0
    for end in range(1, len(own) + 1):
        if own[end - 1] and (end == len(own) or not own[end]):
            start = next(t for t in range(start, end) if own[t])
            numbers = tensors["advantages"][start:end].tolist()
            value = float(values[start]) if values.any() else None
            yield Spoken([str(t) for t in row["tokens"][start:end]], numbers, value, next(rewards, 0.0))
            start = end


def card(label: str, row: Row, spoken: list[Spoken], largest: float) -> Markup:
    """One episode: its turns one below the other, the model's colored by the advantage of each token."""
    mine = iter(spoken)
    number = 0
    turns = []
    for message in row["episode"]["messages"]:
        if message["role"] == "assistant":
            number += 1
            turns.append(own_turn(number, next(mine), largest))
        else:
            said = element("pre", element("bdi", message["content"]))
            turns.append(element("li", element("p", message["role"], class_="picked"), said, class_="heard"))
    total = sum(turn.reward for turn in spoken)
    what = f"{label} · {row['episode'].get('ending')} · earned {total:.3g} in {number} turn{'s' * (number != 1)}"
    prompt = element("p", element("bdi", str(row["prompt"])), class_="prompt")
    return element("article", element("p", what, class_="picked"), prompt, element("ol", *turns, class_="turns"),
                   class_="sample")  # fmt: skip


def own_turn(number: int, turn: Spoken, largest: float) -> Markup:
    """A turn of the model, and in words what it earned and what was expected."""
    mean = sum(turn.advantages) / len(turn.advantages)
    before = "" if turn.value is None else f" · value before {turn.value:.3g}"
    facts = f"model, turn {number}: reward {turn.reward:+.3g}{before} · advantage {mean:+.3g}"
    pairs = zip(turn.tokens, turn.advantages, strict=False)
    tokens = [shaded(token, advantage, largest) for token, advantage in pairs]
    return element("li", element("p", facts, class_="picked"), element("pre", element("bdi", *tokens)), class_="own")


def shaded(token: str, advantage: float, largest: float) -> Markup:
    """A token, colored by its share of the largest advantage as in the token inspector."""
    weight = round(100 * min(1.0, abs(advantage) / largest)) if math.isfinite(advantage) else 0
    kind = "low" if advantage < 0 else "high"
    return element("span", token, class_=kind, style=f"--weight: {weight}%", title=f"advantage {advantage:+.3g}")
