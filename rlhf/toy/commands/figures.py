"""All explanatory figures in one folder, drawn through the very functions that train."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rlhf.toy import bandit, contextual, dynamics, tiny_lm
from rlhf.toy.commands.bandit import run as run_bandit
from rlhf.toy.commands.contextual import run as run_contextual
from rlhf.toy.commands.dynamics import run as run_dynamics
from rlhf.toy.commands.tiny_lm import run as run_tiny_lm
from rlhf.toy.config import BanditConfig, ContextualConfig, DynamicsConfig, FiguresConfig, TinyLMConfig
from rlhf.toy.plots import concepts, diagrams

TOYS: tuple[tuple[Any, Callable[[Any], Any], Any], ...] = (
    (bandit, run_bandit, BanditConfig()),
    (contextual, run_contextual, ContextualConfig()),
    (dynamics, run_dynamics, DynamicsConfig()),
    (tiny_lm, run_tiny_lm, TinyLMConfig(seeds=3)),
)


def run(config: FiguresConfig) -> dict[str, Any]:
    """Draw, and print what each picture shows; returns {file name: what it shows}."""
    drawn = {**concepts.draw(config.output_dir), **diagrams.draw(config.output_dir)}
    if config.toys:
        for toy, run_toy, defaults in TOYS:
            torch.set_num_threads(defaults.threads)
            with tempfile.TemporaryDirectory() as folder:
                run_toy(replace(defaults, output_dir=Path(folder)))
                for picture in sorted(Path(folder).glob("*.png")):
                    (config.output_dir / picture.name).write_bytes(picture.read_bytes())
                    drawn[picture.name] = (toy.__doc__ or "").splitlines()[0]
            print()
    for name, shows in drawn.items():
        print(f"{name:24} {shows}")
    return drawn
