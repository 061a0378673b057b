"""All explanatory figures in one folder, drawn through the very functions that train."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rlhf.toy import bandit, contextual, dynamics, tiny_lm
from rlhf.toy.config import BanditConfig, ContextualConfig, DynamicsConfig, FiguresConfig, TinyLMConfig


def run(config: FiguresConfig) -> dict[str, Any]:
    """Draw, and print what each picture shows; returns {file name: what it shows}."""
    from rlhf.toy.plots import concepts, diagrams

    drawn = {**concepts.draw(config.output_dir), **diagrams.draw(config.output_dir)}
    if config.toys:
        for module, defaults in (
            (bandit, BanditConfig()),
            (contextual, ContextualConfig()),
            (dynamics, DynamicsConfig()),
            (tiny_lm, TinyLMConfig(seeds=3)),
        ):
            torch.set_num_threads(defaults.threads)
            with tempfile.TemporaryDirectory() as folder:
                module.run(replace(defaults, output_dir=Path(folder)))
                for picture in sorted(Path(folder).glob("*.png")):
                    (config.output_dir / picture.name).write_bytes(picture.read_bytes())
                    drawn[picture.name] = (module.__doc__ or "").splitlines()[0]
            print()
    for name, shows in drawn.items():
        print(f"{name:24} {shows}")
    return drawn
