"""Plots of a run's metrics, as PNG files."""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlhf.errors import visible, with_kind
from rlhf.extras import installs, is_installed
from rlhf.runs.files import read_jsonl
from rlhf.runs.folder import METRICS_FILE

INK, BLUE, ORANGE, GRAY, WARNING = "#1f2933", "#2563a8", "#c2571a", "#8a94a0", "#b3261e"
PALETTE = [BLUE, ORANGE, "#3b8a4c", "#8b5aa8", "#a8862a"]


def subplots(rows: int, columns: int, width: float, height: float, **options: Any) -> tuple[Any, Any]:
    """A figure in inches, to be saved into a file, and its axes [rows, columns]; `options` go to `Figure.subplots`.

    Without pyplot: where somebody else draws, in a notebook for example, it would change how their figures are shown.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def can_draw(what: str) -> bool:
    """Whether matplotlib is installed; where it is not, a line says what is not drawn."""
    if is_installed("matplotlib"):
        return True
    print(f"not drawn: {what}; it takes matplotlib: {installs('matplotlib')}", file=sys.stderr)
    return False


@contextlib.contextmanager
def any_names() -> Iterator[None]:
    """Draws names as they are: with dollar signs, or characters that the font lacks."""
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def plot_reward_and_kl(folder: Path, file: Path, warmup_updates: int) -> None:
    """Score and its components, and KL to the reference, over the updates of a PPO run.

    The run has been trained by then and must not fail for its picture: what is wrong is a line, and no file is left.
    """
    if not can_draw(file.name):
        return
    try:
        with any_names():
            _plot_reward_and_kl(folder, file, warmup_updates)
    except (OSError, ValueError) as error:
        print(f"not drawn: {file} ({visible(with_kind(error))})", file=sys.stderr)
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def _plot_reward_and_kl(folder: Path, file: Path, warmup_updates: int) -> None:
    rows = [row for row in read_jsonl(folder / METRICS_FILE) if row["step"] > 0]
    steps = [row["step"] for row in rows]
    figure, [(left, right)] = subplots(1, 2, 10, 3.8)
    components = list(dict.fromkeys(name for row in rows for name in row if name.startswith("reward/")))
    left.plot(steps, [row["objective/score"] for row in rows], color=INK, linewidth=2.2, label="score (weighted sum)")
    for name, color in zip(components, PALETTE * len(components), strict=False):
        values = [row.get(name, float("nan")) for row in rows]
        left.plot(steps, values, color=color, linewidth=1.4, label=visible(name.removeprefix("reward/")))
    left.set(title="Reward of the rollouts", xlabel="update", ylabel="mean per response")
    kl = {row["step"]: row["objective/kl"] for row in rows if "objective/kl" in row}  # not of a batch used again
    right.plot(list(kl), list(kl.values()), color=ORANGE, linewidth=2.2)
    right.set(title="KL to the reference", xlabel="update", ylabel="nats per response")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if warmup_updates:
            axes.axvspan(1, warmup_updates + 1, color=GRAY, alpha=0.15, linewidth=0)
    if warmup_updates:
        right.text(1.2, right.get_ylim()[1] * 0.95, "critic\nwarm-up", va="top", color=GRAY, fontsize=8)
    left.legend(frameon=False, fontsize=8)
    figure.savefig(file)
