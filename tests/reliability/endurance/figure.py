"""The plot of a long run: what it takes from the machine, left alone and struck by faults."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from endurance.faults import KINDS
from endurance.gauge import Reading
from endurance.growth import plain_update, saving_update
from endurance.lives import Life
from rlhf.report.plots import BLUE, INK, ORANGE, PALETTE

MARKS = dict(zip(KINDS, "ovs^DPX", strict=True))
Value = Callable[[Reading], float | None]


def draw(file: Path, alone: Life, lives: Sequence[Life]) -> None:
    """Four panels over the updates, with the faults above them."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels: dict[str, list[Value]] = {
        "resident memory, MB (the axis does not begin at 0)": [lambda reading: reading.memory / 1e6],
        "processor time of an update, units; above: with a checkpoint": [plain_update, saving_update],
        "open handles; below: threads": [lambda reading: reading.handles, lambda reading: reading.threads],
        "run folder, MB; below: its checkpoints": [
            lambda reading: (reading.checkpoint_bytes + reading.other_bytes) / 1e6,
            lambda reading: reading.checkpoint_bytes / 1e6,
        ],
    }
    figure, grid = plt.subplots(
        3, 2, figsize=(11, 7.2), dpi=120, layout="constrained", sharex=True, height_ratios=[0.3, 1, 1]
    )
    for axes in grid[0]:
        mark_faults(axes, lives)
    for axes, (title, values) in zip(grid[1:].flatten(), panels.items(), strict=True):
        for value in values:
            draw_runs(axes, alone, lives, value)
        axes.set_title(title, fontsize=10, color=INK)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[1:].flatten()[1:]:
        axes.set_ylim(bottom=0)
    for axes in grid[2]:
        axes.set_xlabel("update")
    colors = [plt.Line2D([], [], color=color) for color in (BLUE, ORANGE)]
    names = ["left alone, in one process", "struck by faults, one process after the other"]
    grid[2, 1].legend(colors, names, frameon=False, fontsize=8, loc="upper left")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
    plt.close(figure)


def mark_faults(axes: Any, lives: Sequence[Life]) -> None:
    """A row of marks for each kind of fault, where it struck."""
    for height, (color, kind) in enumerate(zip([*PALETTE, INK, "#c23b5a"], KINDS, strict=True)):
        when = [life.fault.update for life in lives if life.fault and life.fault.kind == kind]
        axes.scatter(when, [height] * len(when), marker=MARKS[kind], s=16, color=color)
        axes.annotate(
            kind, (0, height), (-4, 0), textcoords="offset points", ha="right", va="center", fontsize=7, color=color
        )
    axes.spines[:].set_visible(False)
    axes.tick_params(left=False, bottom=False, labelleft=False)


def draw_runs(axes: Any, alone: Life, lives: Sequence[Life], value: Value) -> None:
    """Both runs, without the first reading of each process: it has the loading of the libraries in it."""
    for life, color in (*((life, ORANGE) for life in lives), (alone, BLUE)):
        points = [(reading.update, y) for reading in life.readings[1:] if (y := value(reading)) is not None]
        axes.plot(*zip(*points, strict=True), color=color, linewidth=1.0)
