"""A reward model measured on held-out pairs: numbers, calibration plot, margin histogram."""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from rlhf.data.preferences import TokenizedPair
from rlhf.report.plots import BLUE, GRAY, INK, ORANGE, can_draw, subplots
from rlhf.report.tables import print_table

BINS = 5


def confidence(margin: float) -> float:
    """The probability, in [.5, 1], that the model gives to the side it prefers: sigmoid(|margin|)."""
    return 1 / (1 + math.exp(-abs(margin)))


def measure(margins: list[float]) -> dict[str, float]:
    """Accuracy, mean log loss -log sigmoid(margin), mean margin and expected calibration error; a tie is wrong."""
    return {
        "accuracy": sum(margin > 0 for margin in margins) / len(margins),
        "log_loss": sum(max(0.0, -m) + math.log1p(math.exp(-abs(m))) for m in margins) / len(margins),
        "margin": sum(margins) / len(margins),
        "calibration_error": sum(n * abs(sure - right) for sure, right, n in calibration(margins)) / len(margins),
    }


def calibration(margins: list[float]) -> list[tuple[float, float, int]]:
    """(mean confidence, accuracy, pairs) of each bin of equal width between .5 and 1 that holds any pair."""
    bins: dict[int, list[float]] = defaultdict(list)
    for margin in margins:
        bins[min(BINS - 1, int((confidence(margin) - 0.5) * 2 * BINS))].append(margin)
    return [
        (sum(map(confidence, held)) / len(held), sum(m > 0 for m in held) / len(held), len(held))
        for _, held in sorted(bins.items())
    ]


def accuracies(margins: list[float], pairs: list[TokenizedPair], group_by: str | None) -> dict[str, float]:
    """Accuracy for each value of the column `group_by`, the worst first; empty without one."""
    if group_by is None:
        return {}
    groups: dict[str, list[float]] = defaultdict(list)
    for margin, pair in zip(margins, pairs, strict=True):
        groups[str(pair.columns.get(group_by))].append(margin)
    shares = {name: sum(m > 0 for m in held) / len(held) for name, held in groups.items()}
    return dict(sorted(shares.items(), key=lambda item: (item[1], item[0])))


def plot_calibration(margins: list[float], file: Path) -> None:
    """How often the preferred side is the chosen one, against how sure the model was, with the number of pairs."""
    if not can_draw(file.name):
        return
    figure, [[top], [bottom]] = subplots(2, 1, 5.4, 5.4, sharex=True, height_ratios=[3, 1])
    sure, right, counts = zip(*calibration(margins), strict=True)
    top.plot([0.5, 1], [0.5, 1], color=GRAY, linestyle="--", linewidth=1.2, label="perfectly calibrated")
    top.plot(sure, right, color=BLUE, marker="o", linewidth=1.8, label="this model")
    top.set(title="Calibration on held-out pairs", ylabel="share of pairs ranked right", ylim=(-0.03, 1.05))
    top.legend(frameon=False, fontsize=8, loc="lower right")
    bottom.hist([confidence(m) for m in margins], bins=20, range=(0.5, 1), color=BLUE, alpha=0.75)
    bottom.set(xlabel="confidence of the model, sigmoid(|margin|)", ylabel="pairs", xlim=(0.49, 1.01))
    for x, y, n in zip(sure, right, counts, strict=True):
        top.annotate(f"{n}", (x, y), textcoords="offset points", xytext=(0, -14), ha="center", fontsize=8, color=INK)
    _finish(figure, (top, bottom), file)


def plot_margins(margins: list[float], file: Path) -> None:
    """Histogram of chosen minus rejected score, wrong pairs in another color."""
    if not can_draw(file.name):
        return
    figure, [[axes]] = subplots(1, 1, 6.4, 3.8)
    low, high = min(0.0, *margins), max(0.0, *margins)
    width = (high - low or 1.0) / 30
    edges = [n * width for n in range(math.floor(low / width), math.ceil(high / width) + 2)]  # 0 is one of them
    wrong = [m for m in margins if m <= 0]
    right = [m for m in margins if m > 0]
    axes.hist(right, bins=edges, color=BLUE, alpha=0.85, label=f"right: {len(right)} pairs")
    axes.hist(wrong, bins=edges, color=ORANGE, alpha=0.85, label=f"wrong: {len(wrong)} pairs")
    axes.axvline(0, color=INK, linewidth=1)
    axes.set(
        title=f"Margins on held-out pairs: {len(right) / len(margins):.1%} right",
        xlabel="score of chosen minus rejected, in standard deviations of the reference scores",
        ylabel="pairs",
    )
    axes.legend(frameon=False, fontsize=8)
    _finish(figure, (axes,), file)


def show(summary: dict[str, Any], folder: Path) -> None:
    """Print a run's summary and where its files are."""
    rows = [[name, f"{summary[name]:.3f}"] for name in ("accuracy", "log_loss", "margin", "calibration_error")]
    rows += [[f"accuracy: {name}", f"{share:.3f}"] for name, share in summary["accuracy_by"].items()]
    print_table([f"{summary['held_out_pairs']} held-out pairs", str(folder)], rows)
    if (folder / "margins.png").is_file():  # not without matplotlib
        print(f"plots        {folder / 'calibration.png'}, {folder / 'margins.png'}")
    print(f"summary      {folder / 'summary.json'}")


def _finish(figure: Any, panels: tuple[Any, ...], file: Path) -> None:
    for axes in panels:
        axes.set_axisbelow(True)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file)
