"""How the cost of PPO grows: response tokens per second against batch, response length, samples per prompt and threads.

    python benchmarks/bench_costs.py [--dtype fp32|bf16] [--repeats 3] [--figure docs/figures/costs.png]

All on setting a of bench_ppo.py, of which each curve changes one thing (samples per prompt: with prompts of 128
tokens). One thread and processor seconds, but for the threads, where it is wall seconds. The last line is JSON.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from ppo_bench.conclude import seconds_of
from ppo_bench.model import write_workload
from ppo_bench.settings import DTYPES, A, Setting
from ppo_bench.sides import Side, work
from ppo_bench.turns import elsewhere, started, take_turns

from rlhf.report.plots import BLUE
from rlhf.report.tables import markdown_table

BATCHES = (4, 8, 16, 32, 64, 128)
RESPONSE_TOKENS = (16, 32, 64, 128, 256)
SAMPLES_PER_PROMPT = (1, 2, 4, 8, 16)
LONG_PROMPT = 128
LABELS = {
    "batch": "responses per update",
    "response tokens": "tokens per response",
    "samples per prompt": f"responses per prompt of {LONG_PROMPT} tokens",
    "threads": "threads",
}


class Point(NamedTuple):
    """One place on one curve: what is changed, its value, the work, and the threads it is done with."""

    curve: str
    value: int
    setting: Setting
    threads: int


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--figure", type=Path, default=Path("docs/figures/costs.png"))
    arguments = parser.parse_args()
    curves: dict[str, dict[int, float]] = {curve: {} for curve in LABELS}
    for point in points():
        speed = tokens_per_second(point, DTYPES[arguments.dtype], arguments.repeats)
        curves[point.curve][point.value] = speed
        print(f"{point.curve} {point.value}: {speed:.0f} response tokens/s", flush=True)
    print(f"\n{table(curves)}\n")
    plot(curves, arguments.figure)
    print(json.dumps(curves))


def points() -> Iterator[Point]:
    """All places on all curves."""
    for batch in BATCHES:
        changed = replace(A, batch=batch, minibatch=batch, micro_batch=min(batch, A.micro_batch))
        yield Point("batch", batch, changed, 1)
    for tokens in RESPONSE_TOKENS:
        yield Point("response tokens", tokens, replace(A, response_tokens=tokens), 1)
    for samples in SAMPLES_PER_PROMPT:
        changed = replace(A, num_generations=samples, prompt_tokens=LONG_PROMPT)
        yield Point("samples per prompt", samples, changed, 1)
    for threads in range(1, (os.cpu_count() or 1) + 1):
        yield Point("threads", threads, A, threads)


def tokens_per_second(point: Point, dtype: str, repeats: int) -> float:
    """Response tokens per second of whole updates, median; the first update is not counted."""
    os.environ |= {"OMP_NUM_THREADS": str(point.threads), "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory(prefix="bench_costs_") as folder:
        side = Side(
            name="rlhf",
            trainer="rlhf",
            setting=point.setting,
            workload=Path(folder) / "workload",
            dtype=dtype,
            critic="shared",
            threads=point.threads,
        )
        elsewhere(write_workload, side.setting, side.workload)
        [updates] = take_turns([started(side.name, work, side)], repeats)
    clock = "wall" if point.curve == "threads" else "cpu"
    return median(sum(update["lengths"]) / seconds_of(update, clock) for update in updates)


def table(curves: dict[str, dict[int, float]]) -> str:
    """One row per curve: value: tokens/s."""
    rows = [
        [name, ", ".join(f"{value}: {speed:.0f}" for value, speed in curve.items())] for name, curve in curves.items()
    ]
    return markdown_table(["what is changed", "response tokens/s"], rows)


def plot(curves: dict[str, dict[int, float]], file: Path) -> None:
    """A panel for each curve, all with the same vertical axis."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(curves), figsize=(13, 3.6), dpi=120, layout="constrained", sharey=True)
    for axes, (name, curve) in zip(panels, curves.items(), strict=True):
        draw(axes, curve, logarithmic=name != "threads")
        axes.set(xlabel=LABELS[name], title=f"by {name}")
    panels[0].set(ylabel="response tokens per second", ylim=(0, None))
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
    plt.close(figure)


def draw(axes: Any, curve: dict[int, float], logarithmic: bool) -> None:
    """Speed over value."""
    axes.plot(list(curve), list(curve.values()), color=BLUE, marker="o", markersize=4, linewidth=1.8)
    if logarithmic:
        axes.set_xscale("log", base=2)
    axes.set_xticks(list(curve), [str(value) for value in curve])
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
