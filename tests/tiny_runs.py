"""Very small runs: their configs, a trainer, a reward that a random model can vary in, a crash, and a signal."""

import dataclasses
import os
import random
import signal
from pathlib import Path

import torch
import yaml

from rlhf.config import DataConfig, LoraConfig, ModelConfig, PPOConfig, SamplingConfig, TrackingConfig
from rlhf.ppo.trainer import Callback
from rlhf.rewards import RewardSpec, RewardSum
from rlhf.rewards.turns import text_of
from rlhf.runs.folder import as_plain
from rlhf.stages.ppo import build_trainer


def count_e(prompts, completions, **columns):
    """The share of the letter e: something a random model can vary in."""
    return [text.count("e") / max(1, len(text)) for text in map(text_of, completions)]


def draws_a_number(prompts, completions, **columns):
    """Not a function of its arguments: it uses up the random numbers of everybody."""
    return [random.random() + torch.rand(()).item() for _ in completions]


def never_applies(prompts, completions, **columns):
    """A reward for other prompts than these."""
    return [None for _ in completions]


COUNT_E = RewardSpec(path="tiny_runs.count_e")


class AskToStop(Callback):
    """The signal of a batch system, in the middle of an update."""

    def __init__(self, at: int) -> None:
        self.at = at

    def after_advantages(self, trainer, rollout):
        if trainer.updates_done + 1 == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


def make_config(model, data, **options) -> PPOConfig:
    defaults = {
        "output_dir": "unused",
        "model": ModelConfig(name_or_path=str(model)),
        "data": DataConfig(train=data),
        "rewards": [COUNT_E],
        "lora": LoraConfig(r=4, alpha=8),
        "sampling": SamplingConfig(max_new_tokens=10),
        "num_updates": 4,
        "batch_size": 8,
        "num_generations": 2,
        "mini_batch_size": 4,
        "micro_batch_size": 4,
        "num_ppo_epochs": 2,
        "learning_rate": 1e-2,
        "tracking": TrackingConfig(tensorboard=False),
    }
    return PPOConfig(**defaults | options)


def make_trainer(tiny_models, pairs, architecture="gpt2", gradient_checkpointing=False, **options):
    config = make_config(tiny_models[architecture], pairs, **options)
    model = dataclasses.replace(config.model, gradient_checkpointing=gradient_checkpointing)
    return build_trainer(dataclasses.replace(config, model=model), RewardSum.from_specs(config.rewards))


def parameters(trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for _, p in trainer.policy.trainable])


def command_line(config, folder: Path) -> list[str]:
    """The arguments of `rlhf ppo` for this config."""
    file = folder / "ppo.yaml"
    plain = as_plain(config) | {"output_dir": str(folder / "run")}
    file.write_text(yaml.safe_dump(plain))
    return ["ppo", "--config", str(file)]


def pipeline_config(folder: Path, data: str, architecture: str) -> dict:
    size = {"hidden_size": 32, "layers": 2, "heads": 2, "context_length": 128, "vocab_size": 320}
    scratch = {"architecture": architecture, **size}
    metrics = [{"path": "react_parses", "name": "parse_rate"}, {"path": "react_structure", "name": "jsx_rate"}]
    data_section = {"train": data, "eval": data}
    return {
        "output_dir": str(folder),
        "seed": 3,
        "sft": {
            "model": {"scratch": scratch}, "data": data_section, "num_train_epochs": 6, "batch_size": 4,
            "learning_rate": 0.01,
        },
        "ppo": {
            "data": data_section,
            "rewards": [{"path": "react_heuristic"}, {"path": "react_parses", "weight": 0.5}],
            "lora": {"r": 2, "alpha": 4},
            "sampling": {"max_new_tokens": 24},
            "num_updates": 3, "batch_size": 8, "mini_batch_size": 8, "micro_batch_size": 4, "num_ppo_epochs": 1,
            "learning_rate": 0.001,
        },
        "evaluation": {"prompts": 4, "num_generations": 2, "metrics": metrics},
    }  # fmt: skip


class Crash(Callback):
    """An exception in the middle of an update."""

    def __init__(self, at: int) -> None:
        self.at = at

    def after_advantages(self, trainer, rollout):
        if trainer.updates_done + 1 == self.at:
            raise RuntimeError("power failure")
