"""How the cost of PPO grows: response tokens per second against batch, length, samples per prompt, threads and model.

    python benchmarks/bench_costs.py [--dtype fp32|bf16] [--critic adapter] [--repeats 3] [--figure FILE.png]

All on setting a of bench_ppo.py, of which each curve changes one thing (samples per prompt: with prompts of 128
tokens), but for the models: Llamas of 2M, 35M, 135M and 360M weights, the last two of SmolLM2's shapes, on the batch of
setting b. One thread and processor seconds, but for the threads, where it is wall seconds. Beside each speed is that of
the arithmetic floor (ppo_bench/floor.py). The last line is JSON.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, get_args

import torch
from ppo_bench.conclude import floor_seconds, seconds_of
from ppo_bench.floor import rates
from ppo_bench.model import write_workload
from ppo_bench.settings import DTYPES, MODELS, A, Critic, Setting
from ppo_bench.sides import Side, work
from ppo_bench.turns import elsewhere, started, take_turns

from rlhf.report.plots import BLUE, GRAY
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
    "model": "millions of weights",
}


class Point(NamedTuple):
    """One place on one curve: what is changed, its value, the work, and the threads it is done with."""

    curve: str
    value: int
    setting: Setting
    threads: int


class Speed(NamedTuple):
    """Response tokens per second: of whole updates, and of the products of the floor alone."""

    ours: float
    floor: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--critic", choices=get_args(Critic), default="adapter")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--figure", type=Path, default=Path("docs/figures/costs.png"))
    arguments = parser.parse_args()
    curves: dict[str, dict[int, Speed]] = {curve: {} for curve in LABELS}
    for point in points():
        speed = measured(point, DTYPES[arguments.dtype], arguments.critic, arguments.repeats)
        curves[point.curve][point.value] = speed
        print(f"{point.curve} {point.value}: {speed.ours:.1f} response tokens/s, floor {speed.floor:.1f}", flush=True)
    print(f"\n{table(curves)}\n")
    plot(curves, arguments.figure)
    print(json.dumps(curves))  # each speed as [ours, floor]


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
    for millions, model in MODELS.items():
        yield Point("model", millions, model, 1)


def measured(point: Point, dtype: str, critic: Critic, repeats: int) -> Speed:
    """Whole updates, median; the first update is not counted."""
    os.environ |= {"OMP_NUM_THREADS": str(point.threads), "TOKENIZERS_PARALLELISM": "false"}
    clock = "wall" if point.curve == "threads" else "cpu"
    with tempfile.TemporaryDirectory(prefix="bench_costs_") as folder:
        side = Side(
            name="rlhf",
            trainer="rlhf",
            setting=point.setting,
            workload=Path(folder) / "workload",
            dtype=dtype,
            critic=critic,
            threads=point.threads,
        )
        elsewhere(write_workload, side.setting, side.workload, dtype)
        [updates] = take_turns([started(side.name, work, side)], repeats)
    floor = elsewhere(floor_speed, point, dtype, critic, clock)
    return Speed(median(sum(update["lengths"]) / seconds_of(update, clock) for update in updates), floor)


def floor_speed(point: Point, dtype: str, critic: Critic, clock: str) -> float:
    """Response tokens per second if there were nothing but the products that cannot be done without."""
    torch.set_num_threads(point.threads)
    lengths = [point.setting.response_tokens] * point.setting.batch
    rate = rates(point.setting, dtype, by_processor=clock == "cpu")
    return sum(lengths) / floor_seconds(point.setting, lengths, critic, rate)


def table(curves: dict[str, dict[int, Speed]]) -> str:
    """One row per curve: value: tokens/s; and how many times as long as the floor that takes."""
    rows = []
    for name, curve in curves.items():
        speeds = ", ".join(f"{value}: {speed.ours:.3g}" for value, speed in curve.items())
        ratios = ", ".join(f"{value}: {speed.floor / speed.ours:.1f}" for value, speed in curve.items())
        rows.append([name, speeds, ratios])
    return markdown_table(["what is changed", "response tokens/s", "times the floor"], rows)


def plot(curves: dict[str, dict[int, Speed]], file: Path) -> None:
    """A panel for each curve; speeds are on a logarithmic axis, the same for all."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(curves), figsize=(14, 3.6), dpi=120, layout="constrained", sharey=True)
    for axes, (name, curve) in zip(panels, curves.items(), strict=True):
        draw(axes, curve)
        axes.set(xlabel=LABELS[name], title=f"by {name}")
    panels[0].set(ylabel="response tokens per second")
    panels[0].legend(frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
    plt.close(figure)


def draw(axes: Any, curve: dict[int, Speed]) -> None:
    """Speed over value, and that of the floor."""
    values = list(curve)
    axes.plot(values, [curve[v].floor for v in values], color=GRAY, linestyle="--", linewidth=1.4, label="floor")
    axes.plot(
        values, [curve[v].ours for v in values], color=BLUE, linewidth=1.8, marker="o", markersize=4, label="rlhf"
    )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(values, [str(value) for value in values])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
