"""Responses before and after training side by side, with what changed and what the rewards said."""

import difflib
import re
from dataclasses import dataclass

from rlhf.report.foreign import STORED, is_number
from rlhf.report.headline import TITLES
from rlhf.report.html import Markup, element, join
from rlhf.report.load import ROWS_FILE, Row, Run, read_rows
from rlhf.report.previews import render_previews, rewards_react

SHOWN = 6
LONGEST_DIFF = 3000  # pieces; beyond that the comparison takes seconds and nobody reads it
_PIECE = re.compile(r"\s+|\w+|[^\w\s]")
NOT_A_NUMBER = ("prompt", "response", "explanation", "step", "tokens", "rewards", "extra", "origin")


@dataclass(frozen=True)
class Pair:
    """Responses to the same prompt, and why this prompt was picked."""

    prompt: str
    before: Row
    after: Row
    picked: str


def sample_cards(run: Run, count: int = SHOWN) -> list[Markup]:
    """Held-out and watched prompts with two responses each; without either, single responses.

    These are of the first and last update, or of an evaluation.
    """
    held_out, watched = held_out_pairs(run, count), watched_pairs(run)[:count]
    if not held_out and not watched:
        return [single_card(row, label) for row, label in singles(run, count)]
    texts = [str(row["response"]) for pair in [*held_out, *watched] for row in (pair.before, pair.after)]
    previews = render_previews(texts) if rewards_react(run.config) else {}
    models = list(run.evaluations)
    cards = [sample_card(pair, (models[0], models[-1]), previews) for pair in held_out]
    updates = [f"update {step}" for step in run.rollouts]
    cards += [sample_card(pair, (updates[0], updates[-1]), previews) for pair in watched]
    what = "What only one of the two responses has is marked: orange in the first, blue in the second."
    return [element("p", what, class_="lead"), *cards]


def singles(run: Run, count: int) -> list[tuple[Row, str]]:
    """Responses that have no counterpart, and what each is."""
    if run.samples:
        return [(row, f"update {row['step']}") for row in ends(run.samples)]
    rows = [row for evaluation in run.evaluations.values() for row in evaluation.rows if is_number(row.get("reward"))]
    rewards = [row["reward"] for row in rows]
    return [(rows[i], why) for i, why in extremes_and_spread(rewards, "highest reward", "lowest reward", count)]


def extremes_and_spread(values: list[float], highest: str, lowest: str, count: int) -> list[tuple[int, str]]:
    """Indices of the largest and the smallest value and of an even spread, each with why it was picked."""
    if not values:
        return []
    picked = {
        max(range(len(values)), key=values.__getitem__): highest,
        min(range(len(values)), key=values.__getitem__): lowest,
    }
    spread = max(1, count - len(picked))
    for index in range(spread):
        picked.setdefault(index * len(values) // spread, "one of an even spread")
    return list(picked.items())[:count]


def ends(samples: list[Row]) -> list[Row]:
    """Two samples of the first update and two of the last."""
    steps = sorted({row["step"] for row in samples})
    of_step = [[row for row in samples if row["step"] == step][:2] for step in dict.fromkeys(steps[:1] + steps[-1:])]
    return [row for rows in of_step for row in rows]


def held_out_pairs(run: Run, count: int = SHOWN) -> list[Pair]:
    """From the evaluations before and after: the largest gain, the largest loss, the rest evenly spread."""
    if len(run.evaluations) < 2:
        return []
    measured = [evaluation.rows for evaluation in run.evaluations.values()]
    before, after = measured[0], measured[-1]
    both = [
        (b, a)
        for b, a in zip(before, after, strict=False)
        if b["prompt"] == a["prompt"] and is_number(b.get("reward")) and is_number(a.get("reward"))
    ]
    gains = [a["reward"] - b["reward"] for b, a in both]
    picked = extremes_and_spread(gains, "largest gain in reward", "largest loss in reward", count)
    return [Pair(both[i][0]["prompt"], *both[i], why) for i, why in picked]


def watched_pairs(run: Run) -> list[Pair]:
    """The watched prompts with their responses at the first and the last stored update."""
    if len(run.rollouts) < 2:
        return []
    first, last = (read_rows(run.rollouts[step] / ROWS_FILE, STORED) for step in (min(run.rollouts), max(run.rollouts)))
    return [
        Pair(str(before["prompt"]), before, after, "a watched prompt")
        for before, after in zip(first, last, strict=False)
        if before["prompt"] == after["prompt"]
    ]


def sample_card(pair: Pair, labels: tuple[str, str], previews: dict[str, Markup]) -> Markup:
    """One prompt with both responses."""
    before, after = diff(str(pair.before["response"]), str(pair.after["response"]))
    sides = [
        _side(label, row, marked, previews.get(str(row["response"])))
        for label, row, marked in ((labels[0], pair.before, before), (labels[1], pair.after, after))
    ]
    prompt = element("p", element("bdi", pair.prompt), class_="prompt")
    return element("article", element("p", pair.picked, class_="picked"), prompt, element("div", *sides, class_="pair"),
                   class_="sample")  # fmt: skip


def single_card(row: Row, label: str) -> Markup:
    """A response that has no counterpart."""
    prompt = element("p", element("bdi", str(row["prompt"])), class_="prompt")
    return element("article", prompt, _side(label, row, element("span", str(row["response"])), None), class_="sample")


def diff(before: str, after: str) -> tuple[Markup, Markup]:
    """Both texts, what only the first has in <del>, what only the second has in <ins>; word by word."""
    old, new = _PIECE.findall(before), _PIECE.findall(after)
    if len(old) + len(new) > LONGEST_DIFF:
        return element("span", before), element("span", after)
    left, right = [], []
    for changed, lost, gained in changes(old, new):
        left.append(element("del" if changed else "span", lost) if lost else Markup())
        right.append(element("ins" if changed else "span", gained) if gained else Markup())
    return join(left), join(right)


def changes(old: list[str], new: list[str]) -> list[tuple[bool, str, str]]:
    """Alternating stretches (changed, before, after); a lone common piece between two changes counts as changed."""
    stretches: list[tuple[bool, str, str]] = []
    blocks = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    for number, (what, i, j, k, m) in enumerate(blocks):
        inside = 0 < number < len(blocks) - 1
        changed = what != "equal" or (inside and j - i == 1)
        before, after = "".join(old[i:j]), "".join(new[k:m])
        if stretches and stretches[-1][0] == changed:
            _, *texts = stretches.pop()
            before, after = texts[0] + before, texts[1] + after
        stretches.append((changed, before, after))
    return stretches


def _side(label: str, row: Row, marked: Markup, preview: Markup | None) -> Markup:
    code = element("pre", element("bdi", marked), tabindex="0", aria_label=f"response, {label}")
    explanation = str(row.get("explanation") or "")
    why = element("details", element("summary", "What the rewards said"), element("pre", explanation, class_="said"))
    return element(
        "div",
        element("h4", label),
        code,
        preview,
        element("dl", *(_fact(name, value) for name, value in facts(row).items()), class_="facts"),
        _logged(extra(row)),
        why if explanation else None,
        class_="side",
    )


def extra(row: Row) -> dict[str, str]:
    """What the rewards logged about a response in words, by column: beside the rest in samples.jsonl, else nested."""
    nested = row.get("extra") if isinstance(row.get("extra"), dict) else {}
    flat = {name: value for name, value in row.items() if name not in NOT_A_NUMBER and isinstance(value, str)}
    return {name: "-" if value is None else str(value) for name, value in {**flat, **(nested or {})}.items()}


def _logged(columns: dict[str, str]) -> Markup | None:
    if not columns:
        return None
    rows = [element("tr", element("th", name, scope="row"), element("td", element("bdi", value)))
            for name, value in columns.items()]  # fmt: skip
    return element("table", *rows, class_="logged")


def facts(row: Row) -> dict[str, float]:
    """Every number that was noted about a response: rewards, length, KL."""
    rewards = row.get("rewards") if isinstance(row.get("rewards"), dict) else {}
    noted = {**{k: v for k, v in row.items() if k not in NOT_A_NUMBER}, **(rewards or {})}
    numbers = {name: float(value) for name, value in noted.items() if isinstance(value, int | float)}
    plain = {name: name.removeprefix("reward/") for name in numbers}
    return {name if plain[name] in numbers else plain[name]: value for name, value in numbers.items()}


def _fact(name: str, value: float) -> Markup:
    text = f"{value:.0f}" if name in ("length", "eos_rate") else f"{value:.3f}"
    return element("div", element("dt", TITLES.get(name, name)), element("dd", text))
