"""What the comparisons of trained policies share: settings, the starting model, table cells, bands and points."""

import argparse
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rlhf.cli import quiet_libraries, spare_a_core
from rlhf.config import PipelineConfig, PPOConfig
from rlhf.config.command_line import parse
from rlhf.runs.files import read_jsonl
from rlhf.runs.folder import METRICS_FILE
from rlhf.stages.pipeline import evaluate
from rlhf.stages.ppo import run_ppo
from rlhf.stages.sft import run_sft

BUDGET: dict[str, Any] = {"num_updates": 24, "batch_size": 64, "mini_batch_size": 16, "micro_batch_size": 16}
"""Instead of the config's 32 updates of 128: a third of the responses, as many optimizer steps per update."""

HELD_OUT = ["reward", "react_heuristic", "parse_rate", "length", "kl", "objective"]
SMOOTHING = 4  # updates in the running mean of the plotted curves


@dataclass(frozen=True)
class Run:
    """One trained policy: held-out means, rows of metrics.jsonl, and the processor time of its training.

    The time is None for a run that was interrupted on the way.
    """

    held_out: dict[str, float]
    metrics: list[dict[str, Any]]
    cpu_seconds: float | None

    def curve(self, name: str) -> list[float]:
        """A metric at every update, averaged with the updates just before it."""
        values = [row[name] for row in self.metrics if name in row]
        return [mean(values[max(0, end - SMOOTHING) : end]) for end in range(1, len(values) + 1)]


def read_arguments(description: str | None, figure: Path) -> tuple[Path, dict[int, Path]]:
    """Where the plot goes, and the folder of each seed, from the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output_dir", type=Path, default=Path("runs/comparison"))
    parser.add_argument("--figure", type=Path, default=figure)
    arguments = parser.parse_args()
    return arguments.figure, {seed: arguments.output_dir / f"seed-{seed}" for seed in arguments.seeds}


def from_scratch() -> PipelineConfig:
    """Settings of configs/from_scratch.yaml, and libraries that keep quiet."""
    quiet_libraries()
    spare_a_core()
    return parse(PipelineConfig, ["--config", "configs/from_scratch.yaml"])


def sft_means(config: PipelineConfig, folder: Path, seed: int) -> dict[str, float]:
    """Train the model that everything with this seed starts from; its held-out means."""
    assert config.sft is not None
    model = run_sft(replace(config.sft, output_dir=str(folder / "sft"), seed=seed))
    return measure(config, folder / "evaluation_sft", model)


def measure(config: PipelineConfig, folder: Path, model: Path) -> dict[str, float]:
    """Held-out means, and with them what PPO maximizes: objective = reward - kl_coef KL, kl_coef the config's."""
    means = evaluate(config, folder, replace(config.ppo.model, name_or_path=str(model))).means
    return means | {"objective": means["reward"] - config.ppo.kl_coef * means["kl"]}


def ppo_config(config: PipelineConfig, folder: Path, name: str, seed: int, changes: dict[str, Any]) -> PPOConfig:
    """Its PPO on the budget of the comparison, with some settings changed."""
    base = replace(config.ppo.model, name_or_path=str(folder / "sft" / "model"))
    place = str(folder / name / "ppo")
    return replace(config.ppo, output_dir=place, model=base, seed=seed, **(BUDGET | changes))


def train_ours(config: PipelineConfig, folder: Path, seed: int, changes: dict[str, Any]) -> Run:
    """One variant on one seed, trained and measured; equal changes share a folder."""
    name = re.sub(r"[^\w.=]+", "_", "_".join(f"{key}={value}" for key, value in changes.items())) or "unchanged"
    ppo = ppo_config(config, folder, name, seed, changes)
    return train_and_measure(config, folder / name, lambda: run_ppo(ppo))


def train_and_measure(config: PipelineConfig, place: Path, train: Callable[[], Path]) -> Run:
    """Train unless that is done, noting the processor time, and measure the policy on held-out prompts."""
    note = place / "cpu_seconds.txt"
    fresh, started = not place.exists(), time.process_time()
    policy = train()
    if fresh:
        note.write_text(f"{time.process_time() - started:.1f}\n")
    held_out = measure(config, place / "evaluation", policy)
    return Run(held_out, read_jsonl(policy.parent / METRICS_FILE), float(note.read_text()) if note.exists() else None)


def cell(values: Sequence[float], digits: int = 2) -> str:
    """Mean and standard deviation over the seeds."""
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


def cpu_cell(runs: Sequence[Run]) -> str:
    """Processor seconds of one training run."""
    known = [run.cpu_seconds for run in runs if run.cpu_seconds is not None]
    return cell(known, digits=0) if known else ""


def held_out_cells(means: Sequence[dict[str, float]]) -> list[str]:
    """A row of HELD_OUT."""
    return [cell([seed[name] for seed in means], digits=1 if name == "length" else 2) for name in HELD_OUT]


def draw_band(axes: Any, runs: Sequence[Run], metric: str, color: str, label: str) -> None:
    """The mean over the seeds against the number of responses, and a band of one standard deviation."""
    columns = list(zip(*(run.curve(metric) for run in runs), strict=True))
    responses = [(update + 1) * BUDGET["batch_size"] for update in range(len(columns))]
    middle, spread = [mean(column) for column in columns], [stdev(column) for column in columns]
    axes.plot(responses, middle, color=color, linewidth=1.8, label=label)
    low, high = ([m + sign * s for m, s in zip(middle, spread, strict=True)] for sign in (-1, 1))
    axes.fill_between(responses, low, high, color=color, alpha=0.15, linewidth=0)


def draw_held_out(axes: Any, means: Sequence[dict[str, float]], color: str, label: str, **style: Any) -> None:
    """Held-out reward against held-out KL: a small point for each seed, a large one for their mean."""
    kl, reward = [seed["kl"] for seed in means], [seed["reward"] for seed in means]
    axes.scatter(kl, reward, color=color, s=14, alpha=0.55, linewidths=0)
    axes.scatter(mean(kl), mean(reward), color=color, s=75, label=label, zorder=3, **style)


def tidy(axes: Any, **settings: str) -> None:
    """Titles and labels, a faint grid, no box."""
    axes.set(**settings)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
