"""The top of the report as PNG files, for READMEs, papers and chats."""

from pathlib import Path
from typing import Any

from rlhf.errors import visible
from rlhf.report.charts import Chart, frontier, stage_charts
from rlhf.report.compare import Group
from rlhf.report.headline import Change, headline, number_text, title_of, unit_of
from rlhf.report.plots import BLUE, GRAY, INK, ORANGE, PALETTE, WARNING, any_names, can_draw, subplots

CURVES = ("Reward", "KL to the reference", "Entropy", "Length", "Explained variance", "Clipped tokens")
MOST_CURVES = 6
COLORS = [BLUE, ORANGE, *PALETTE[2:], INK, GRAY]


def draw_figures(groups: list[Group], out: Path) -> list[Path]:
    """Write `<out>-headline.png`, `<out>-curves.png` and `<out>-frontier.png`, those that there is something for."""
    if not can_draw(f"{out.stem}-*.png"):
        return []
    with any_names():
        return _draw_all(groups, out)


def _draw_all(groups: list[Group], out: Path) -> list[Path]:
    stages = dict.fromkeys(run.stage for group in groups for run in group.runs)
    charts = [c for stage in stages if stage != "evaluation" for cs in stage_charts(groups, stage).values() for c in cs]
    wanted = [c for title in CURVES for c in charts if c["title"].split(":")[0] == title] or charts
    drawings = [("curves", wanted[:MOST_CURVES]), ("frontier", frontier(groups))]
    files = [_grid(drawn, out.with_name(f"{out.stem}-{name}.png")) for name, drawn in drawings if drawn]
    _, table = headline(groups)
    return [_headline(table, out.with_name(f"{out.stem}-headline.png")), *files] if table else files


def _grid(charts: list[Chart], file: Path) -> Path:
    columns = min(3, len(charts))
    rows = -(-len(charts) // columns)
    figure, axes = subplots(rows, columns, 4.4 * columns, 3.1 * rows)
    for chart, panel in zip(charts, axes.flat, strict=False):
        _draw(chart, panel)
    for panel in axes.flat[len(charts) :]:
        panel.set_visible(False)
    file.unlink(missing_ok=True)  # what lies there may be a link that leads elsewhere
    figure.savefig(file)
    return file


def _draw(chart: Chart, axes: Any) -> None:
    for series in chart["series"]:
        color = COLORS[series["color"] % len(COLORS)]
        y = [float("nan") if value is None else value for value in series["y"]]
        axes.plot(series["x"], y, color=color, linewidth=1.7, label=visible(series["label"]),
                  marker="o" if chart.get("plane") else None, markersize=2.5)  # fmt: skip
        if "lo" in series:
            low, high = ([float("nan") if v is None else v for v in series[edge]] for edge in ("lo", "hi"))
            axes.fill_between(series["x"], low, high, color=color, alpha=0.17, linewidth=0)
    low, high = axes.get_ylim()
    near = [line for line in chart["lines"] if 2 * low - high <= line["y"] <= 2 * high - low]  # others squash the data
    for line in near:
        axes.axhline(line["y"], color=GRAY, linestyle="--", linewidth=1, label=line["label"])
    if chart.get("shade"):
        axes.axvspan(chart["shade"][0], chart["shade"][1] + 1, color=GRAY, alpha=0.15, linewidth=0)
    _mark_warnings(chart, axes)
    axes.set_title(visible(chart["title"]), fontsize=11, color=INK)
    axes.set_xlabel(chart["axis"], fontsize=9)
    axes.set_ylabel(chart["unit"], fontsize=9)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(chart["series"]) > 1 or near or chart["legend"] or chart["warnings"]:
        axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)


def _mark_warnings(chart: Chart, axes: Any) -> None:
    """A triangle for each update that raised one: on top of a line across the chart, or in the plane on its point."""
    if chart.get("plane"):
        points, place = _raised_in_plane(chart), axes.transData
    else:
        points, place = [(warning["x"], 1.0) for warning in chart["warnings"]], axes.get_xaxis_transform()
        for step, _ in points:
            axes.axvline(step, color=WARNING, linestyle=":", linewidth=1)
    if points:
        axes.scatter(*zip(*points, strict=True), marker="v", s=42, color=WARNING, transform=place, clip_on=False,
                     zorder=4, label="warning")  # fmt: skip


def _raised_in_plane(chart: Chart) -> list[tuple[float, float]]:
    points = []
    for warning in chart["warnings"]:
        for series in chart["series"]:
            if series["label"] == warning["line"]:
                updates = series["t"]
                at = min(range(len(updates)), key=lambda i: abs(updates[i] - warning["x"]))
                points += [(series["x"][at], series["y"][at])] if series["y"][at] is not None else []
    return points


def _headline(table: dict[str, list[Change]], file: Path) -> Path:
    """A dumbbell per group and quantity, each quantity on a scale of its own."""
    groups = {change.color: change.label for changes in table.values() for change in changes}
    columns = min(4, len(table))
    lines = -(-len(table) // columns)
    figure, axes = subplots(lines, columns, 3.4 * columns, (1.05 + 0.5 * len(groups)) * lines)
    for (name, changes), panel in zip(table.items(), axes.flat, strict=False):
        _dumbbells(name, changes, panel)
        panel.set_yticks([-number for number in groups], groups.values() if len(groups) > 1 else [""], fontsize=8)
        panel.set_ylim(-len(groups) + 0.6, 0.7)
    for panel in axes.flat[len(table) :]:
        panel.set_visible(False)
    file.unlink(missing_ok=True)  # what lies there may be a link that leads elsewhere
    figure.savefig(file)
    return file


def _dumbbells(name: str, changes: list[Change], axes: Any) -> None:
    for change in changes:
        color, row = COLORS[change.color % len(COLORS)], -change.color
        seeds = change.finite()
        if len(change.pairs) > 1:
            axes.scatter(seeds, [row] * len(seeds), s=9, color=color, alpha=0.45, linewidths=0)
        if change.before is not None:
            axes.plot([change.before, change.after], [row, row], color=color, linewidth=1.6, zorder=1)
            axes.scatter([change.before], [row], s=38, facecolor="white", edgecolor=color, zorder=2)
        axes.scatter([change.after], [row], s=44, color=color, zorder=3)
        before = "" if change.before is None else f"{number_text(change.before)} → "
        place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "center"}
        text = f"{before}{number_text(change.after)}   {change.text()}"
        axes.annotate(text, (0.5, row), (0, 8), fontsize=8, color=INK, **place)
    axes.set_title(visible(title_of(name)), fontsize=10, color=INK)
    axes.set_xlabel(unit_of(name), fontsize=7, color=GRAY, labelpad=1)
    everything = [0.0, *(value for change in changes for value in change.finite())]
    low, high = min(everything), max(everything)
    margin = 0.1 * (high - low) or 1.0
    axes.set_xlim(low - margin, high + margin)  # 0 is on the scale: a small change must look small
    axes.tick_params(axis="x", labelsize=7)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
