"""Before and after, of every quantity that was measured both times: the numbers at the top of the report."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isfinite, isnan
from statistics import stdev

from rlhf.report.compare import Group
from rlhf.report.held_out import HELD_OUT, held_out_rows
from rlhf.report.html import Markup, element, join
from rlhf.report.load import Row, Run
from rlhf.report.series import mean

LAST_SHARE = 0.1
GREEDY = "greedy/"
UNITS = {
    "reward": "weighted sum per response",
    "score": "weighted sum per response",
    "objective/score": "weighted sum per response",
    "objective/kl": "nats per response",
    "objective/entropy": "nats per token",
    "response/length": "tokens",
    "response/eos_rate": "share of responses",
    "critic/explained_variance": "1 is perfect",
    "kl": "nats per response",
    "entropy": "nats per token",
    "length": "tokens",
    "eos_rate": "share of responses",
    "token_accuracy": "share of tokens",
    "accuracy": "share of pairs",
    "margin": "chosen minus rejected",
    "loss": "",
}
TITLES = {"kl": "KL to the reference", "eos_rate": "ends by itself", "explained_variance": "explained variance"}
OF_A_ROLLOUT = ("objective/score", "reward/*", "objective/kl", "objective/entropy", "response/length",
                "response/eos_rate", "critic/explained_variance")  # fmt: skip
MOST_QUANTITIES = 12
ALWAYS = {"reward", "score", "kl", "entropy", "length", "eos_rate"}
"""Shown before anything else where there are more quantities than that."""
NOT_OF_A_BATCH = ("step", HELD_OUT, "time/held_out")
Ends = dict[str, tuple[float | None, float]]  # quantity -> (before, after)


@dataclass(frozen=True)
class Change:
    """One quantity of one group: (before, after) of each seed; before is None where it was measured once."""

    label: str
    color: int
    pairs: list[tuple[float | None, float]]

    @property
    def before(self) -> float | None:
        """Mean over the seeds."""
        known = [before for before, _ in self.pairs if before is not None]
        return mean(known) if known else None

    @property
    def after(self) -> float:
        """Mean over the seeds."""
        return mean([after for _, after in self.pairs])

    def finite(self) -> list[float]:
        """What can be drawn: every value that is there and finite."""
        return [value for pair in self.pairs for value in pair if value is not None and isfinite(value)]

    def text(self) -> str:
        """The change, with the standard deviation over seeds where there are several."""
        changes = [after - before for before, after in self.pairs if before is not None]
        if not changes:
            return spread_text([after for _, after in self.pairs]).lstrip()
        return f"{number_text(mean(changes), '+')}{spread_text(changes)}"


def headline(groups: list[Group]) -> tuple[str, dict[str, list[Change]]]:
    """What is compared, in words, and quantity -> a change per group."""
    measured = [{id(run): before_after(run) for run in group.runs} for group in groups]
    sources = dict.fromkeys(source for group in measured for source, _ in group.values() if source)
    names = dict.fromkeys(name for group in measured for _, values in group.values() for name in values)
    table, shown = {}, most_telling(list(names))
    for name in shown:
        changes = [
            Change(group.label, number, [values[name] for _, values in of_runs.values() if name in values])
            for number, (group, of_runs) in enumerate(zip(groups, measured, strict=True))
        ]
        table[name] = [change for change in changes if change.pairs]
    left_out = [name for name in names if name not in shown]
    more = [f"{len(left_out)} more were measured: {', '.join(left_out)}."] if left_out else []
    return " ".join([*sources, *more]), {name: changes for name, changes in table.items() if changes}


def most_telling(names: list[str]) -> list[str]:
    """As many of the quantities as are shown, in their order; rewards make room for what tells how a policy moved."""
    always = [name for name in names if name.removeprefix("objective/").removeprefix("response/") in ALWAYS]
    kept = [*always, *(name for name in names if name not in always)][:MOST_QUANTITIES]
    return [name for name in names if name in kept]


def before_after(run: Run) -> tuple[str, Ends]:
    """Held-out means of the first and last model where there are such, else the ends of the held-out curves or, where
    nothing was held out, of the training curves."""
    evaluations = list(run.evaluations.items())
    if len(evaluations) > 1:
        (first, before), (last, after) = evaluations[0], evaluations[-1]
        both: Ends = {name: (before.means[name], value) for name, value in after.means.items() if name in before.means}
        source = f"Means over {len(after.rows)} responses to held-out prompts: {first} (hollow) and {last} (filled)."
        return source, both
    if evaluations and not run.rows:
        ((_, only),) = evaluations
        means: Ends = {name: (None, value) for name, value in only.means.items()}
        return f"Means over {len(only.rows)} responses to held-out prompts.", means
    measured = {} if run.stage == "toy" else held_out_rows(run.rows)
    if len(measured) > 1:
        return _ends_held_out(measured, run.stage)
    return _ends_of(run.trained_rows, run.stage) if run.trained_rows and run.stage != "toy" else ("", {})


def _ends_held_out(measured: dict[int, Row], stage: str) -> tuple[str, Ends]:
    (first, before), *_, (last, after) = measured.items()
    what = "update" if stage == "ppo" else "step"
    source = f"Held-out means after {what} {first} (hollow) and {what} {last} (filled)."
    return source, {name: (before.get(name), value) for name, value in after.items()}


def _ends_of(rows: list[Row], stage: str) -> tuple[str, Ends]:
    size = max(1, round(LAST_SHARE * len(rows)))
    names = list(dict.fromkeys(name for row in rows for name in row if not name.startswith(NOT_OF_A_BATCH)))
    if stage == "ppo":
        names = [name for wanted in OF_A_ROLLOUT for name in names if fnmatchcase(name, wanted)]
    ends: Ends = {}
    for name in names:
        first, known, last = (
            [float(row[name]) for row in part if name in row] for part in (rows[:size], rows, rows[-size:])
        )  # a reused batch has no KL
        ends[name] = (mean(first or known[:size]), mean(last or known[-size:]))
    what = "update" if stage == "ppo" else "step"
    span = f"first and last {size} {what}s" if size > 1 else f"first and last {what}"
    return f"Means over the training batches of the {span}: hollow and filled.", ends


def headline_tiles(table: dict[str, list[Change]], several: bool) -> Markup:
    """A tile per quantity, a row per group, with the group's name where there are several."""
    return element("div", *(_tile(name, changes, several) for name, changes in table.items()), class_="tiles")


def _tile(name: str, changes: list[Change], several: bool) -> Markup:
    values = [value for change in changes for value in change.finite()]
    low, high = min(0.0, *values), max(0.0, *values)
    rows = [_row(change, low, high, several) for change in changes]
    unit = element("span", unit_of(name), class_="unit")
    title = element("h3", title_of(name), " ", unit)
    return element("section", title, element("ul", *rows), class_="tile several" if several else "tile")


def unit_of(name: str) -> str:
    """Of a quantity as training or evaluation call it; what is not known and has no stage before it is a reward."""
    name = name.removeprefix(GREEDY)
    is_reward = name.startswith("reward/") or "/" not in name
    return "share of prompts" if name.startswith("pass@") else UNITS.get(name, "per response" if is_reward else "")


def title_of(name: str) -> str:
    """What a quantity is called."""
    if name.startswith(GREEDY):
        return f"{title_of(name.removeprefix(GREEDY))}, greedy"
    short = name.split("/")[-1]
    return TITLES.get(short, short)


def _row(change: Change, low: float, high: float, several: bool) -> Markup:
    before = [] if change.before is None else [
        element("span", number_text(change.before), class_="before"),
        element("span", " → ", class_="arrow"),
    ]  # fmt: skip
    return element(
        "li",
        element("span", change.label, class_="who") if several else None,
        element("span", *before, element("strong", number_text(change.after)), class_="numbers"),
        _dumbbell(change, low, high),
        element("span", change.text(), class_="change"),
    )


def _dumbbell(change: Change, low: float, high: float) -> Markup:
    """A hollow dot before, a filled one after, faint ones for the seeds; 0 is on the scale, which a tile shares."""
    width, middle, edge = 150.0, 9.0, 8.0

    def x(value: float) -> float:
        return edge + (width - 2 * edge) * (0.5 if high == low else (value - low) / (high - low))

    faint = [_dot(x(value), middle, 2.5, "seed") for value in change.finite() if len(change.pairs) > 1]
    ends = [value for value in (change.before, change.after) if value is not None and isfinite(value)]
    before = [_line(x(ends[0]), x(ends[1]), middle, "bar")] if len(ends) == 2 else []
    if change.before in ends[:1]:
        before.append(_dot(x(ends[0]), middle, 4.5, "start"))
    after = [_dot(x(change.after), middle, 5.5, "end")] if isfinite(change.after) else []
    content = join([_line(x(low), x(high), middle, "rail"), *before, *faint, *after])
    box = f"0 0 {width:g} {2 * middle:g}"
    return element("svg", content, class_=f"dumbbell c{change.color % 7}", viewBox=box,
                   preserveAspectRatio="xMinYMid", aria_hidden="true")  # fmt: skip


def _dot(x: float, y: float, radius: float, kind: str) -> Markup:
    return element("circle", cx=f"{x:.1f}", cy=f"{y:g}", r=f"{radius:g}", class_=kind)


def _line(start: float, end: float, y: float, kind: str) -> Markup:
    return element("line", x1=f"{start:.1f}", x2=f"{end:.1f}", y1=f"{y:g}", y2=f"{y:g}", class_=kind)


def number_text(value: float, sign: str = "") -> str:
    """Three decimals below 10, fewer above; with a real minus sign."""
    if isnan(value):
        return "not a number"
    form = ".3f" if abs(value) < 10 else ".1f" if abs(value) < 1000 else ".3g"
    return f"{value:{sign}{form}}".replace("-", "−")


def spread_text(values: list[float]) -> str:
    """Their standard deviation behind a ±; nothing for a single one, and where one is not finite."""
    return f" ± {number_text(stdev(values))}" if len(values) > 1 and all(map(isfinite, values)) else ""
