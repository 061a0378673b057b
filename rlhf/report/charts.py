"""What the page's script draws: each chart as plain data, and the words that stand for it where it cannot be seen."""

from math import isfinite, nan, sqrt
from typing import Any

from rlhf.report.compare import Group, Seeds, seeds_of, toy_clock
from rlhf.report.load import Row
from rlhf.report.marks import Mark, marks
from rlhf.report.panels import Panel, assign, name_of
from rlhf.report.series import curve, quantize

Chart = dict[str, Any]
COLORS = 7  # of the palette in report.css


def stage_charts(groups: list[Group], stage: str) -> dict[str, list[Chart]]:
    """Section -> charts of one stage.

    One group: the metrics of a panel are its lines. Several: a chart for each metric, a line for each group.
    """
    lines = seeds_of(groups, stage)
    names = dict.fromkeys(name for line in lines for seed in line.metrics for row in seed for name in row)
    configs = [run.config_of(stage) for group in groups for run in group.runs if stage in run.metrics]
    shade = warmup(lines[0]) if len(lines) == 1 else None
    raised = marks(groups, gold_of(groups)) if stage == "ppo" else []
    clock = axis(groups, stage)
    sections: dict[str, list[Chart]] = {}
    for section, panels in assign(stage, list(names)).items():
        for panel, metrics in panels:
            together = [metrics] if len(lines) == 1 else [[metric] for metric in metrics]
            charts = [
                chart(panel, lines, shown, configs, alone=len(together) == 1) | {"warnings": about(raised, shown)}
                for shown in together
            ]
            shared = {"shade": shade, "axis": clock, "legend": len(lines) > 1}
            sections.setdefault(section, []).extend(c | shared for c in charts)
    return sections


def chart(panel: Panel, lines: list[Seeds], metrics: list[str], configs: list[Row], *, alone: bool) -> Chart:
    """One panel as data; `alone` if the metrics are all that there is of the panel."""
    series: list[dict[str, Any]] = []
    for metric in metrics:
        for number, line in enumerate(lines):
            drawn = curve(line.metrics, metric)
            if drawn is not None:
                label = name_of(metric).removeprefix("reward/") if len(lines) == 1 else line.label
                color = len(series) if len(lines) == 1 else number
                series.append({"label": label, "color": color % COLORS, **drawn.plain()})
    levels = dict.fromkeys(level for config in configs if (level := panel.line(config)))
    return {
        "title": panel.title if alone else f"{panel.title}: {name_of(metrics[0]).removeprefix('reward/')}",
        "unit": panel.unit,
        "note": panel.note if alone or metrics[0] == panel.metrics[0] else "",
        "series": series,
        "lines": [{"label": f"{name} {value:g}", "y": value} for name, value in levels],
    }


def axis(groups: list[Group], stage: str) -> str:
    """What the horizontal axis counts."""
    if stage == "toy":
        return toy_clock([row for group in groups for run in group.runs for row in run.metrics.get("toy", [])])
    return "update" if stage == "ppo" else "step"


def about(raised: list[Mark], metrics: list[str]) -> list[dict[str, Any]]:
    """The warnings that are about any of these metrics."""
    return [mark.plain() for mark in raised if set(mark.metrics) & set(metrics)]


def warmup(line: Seeds) -> list[float] | None:
    """First and last update in which only the critic was trained, in any seed."""
    steps = [row["step"] for rows in line.metrics for row in rows if row.get("policy/warmup")]
    return [min(steps), max(steps)] if steps else None


def frontier(groups: list[Group]) -> list[Chart]:
    """Score and gold reward, where there is one, against sqrt(KL): the plane of over-optimization (Gao et al. 2023)."""
    lines = seeds_of(groups, "ppo")
    gold = gold_of(groups)
    drawn = [("Score against distance", "score, mean per response", "objective/score")]
    if gold:
        title = f"Gold reward against distance: {gold.removeprefix('reward/')}"
        drawn.append((title, "gold reward, mean per response, not trained on", gold))
    raised = marks(groups, gold)
    charts = [
        _frontier(title, unit, lines, metric) | {"warnings": about(raised, [metric, "objective/kl"])}
        for title, unit, metric in drawn
    ]
    return [c for c in charts if c["series"]]


def gold_of(groups: list[Group]) -> str | None:
    """The metric that any of the runs watches as its gold reward."""
    return next((found for group in groups for run in group.runs if (found := gold_metric(run.config_of("ppo")))), None)


def gold_metric(config: Row) -> str | None:
    """Name of the metric of the reward that is watched and not trained on."""
    gold = (config.get("watch") or {}).get("gold")
    return f"reward/{gold}" if gold else None


def _frontier(title: str, unit: str, lines: list[Seeds], metric: str) -> Chart:
    series = []
    for number, line in enumerate(lines):
        measured = [[row for row in rows if "objective/kl" in row] for rows in line.metrics]
        reward, kl = curve(measured, metric), curve(measured, "objective/kl")
        if reward and kl and reward.steps == kl.steps:
            finite = [isfinite(value) for value in kl.mean]
            distance = [sqrt(max(0.0, value)) if ok else 0.0 for value, ok in zip(kl.mean, finite, strict=True)]
            height = [value if ok else nan for value, ok in zip(reward.mean, finite, strict=True)]  # then no dot
            points = {"x": quantize(distance), "y": quantize(height), "t": quantize(reward.steps)}
            series.append({"label": line.label, "color": number % COLORS, **points})
    return {
        "title": title,
        "unit": unit,
        "note": "Each dot is an update: hollow the first, large the last. Up and to the left is better.",
        "axis": "sqrt(KL), square root of nats per response",
        "series": series,
        "lines": [],
        "legend": True,
        "plane": True,
    }


def in_words(chart: Chart) -> str:
    """First and last value of each line, and the warnings."""
    ends = [
        f"{s['label']} from {_number(s['y'][0])} to {_number(s['y'][-1])}" for s in chart["series"] if len(s["y"]) > 0
    ]
    raised = [f" Warning at update {warning['x']}: {warning['label']}." for warning in chart["warnings"]]
    return f"{chart['title']}, {chart['unit']}: {'; '.join(ends)}.{''.join(raised)}"


def _number(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.4g}"
