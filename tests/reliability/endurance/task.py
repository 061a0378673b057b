"""What is trained in the long run: a one-layer GPT-2 of width 16 and responses of at most eight tokens."""

import json
from pathlib import Path

import torch

from rlhf.config import (
    CheckpointConfig,
    DataConfig,
    InspectConfig,
    LoraConfig,
    ModelConfig,
    PPOConfig,
    SamplingConfig,
    ScratchModel,
    TrackingConfig,
    ValueWarmup,
)
from rlhf.models.load import build_from_scratch
from rlhf.rewards import RewardSpec

WORDS = ("Save", "Send", "Open", "Close", "Start", "Stop", "More", "Less")
MODEL, PROMPTS, RUN = "model", "prompts.jsonl", "run"
STEPS_PER_UPDATE, CHECKPOINT_EVERY = 4, 10


def prepare(folder: Path) -> None:
    """Write the model and the prompts that both runs start from."""
    torch.manual_seed(0)
    shape = ScratchModel(hidden_size=16, layers=1, heads=2, context_length=32, vocab_size=258)
    model, tokenizer = build_from_scratch(shape, list(WORDS))
    model.save_pretrained(folder / MODEL)
    tokenizer.save_pretrained(folder / MODEL)
    rows = [json.dumps({"prompt": f"{word}:"}) + "\n" for word in WORDS]
    (folder / PROMPTS).write_text("".join(rows), encoding="utf-8")


def config(folder: Path, name: str, updates: int) -> PPOConfig:
    """PPO with all the state that a run can carry from update to update; `name` is the run's folder.

    A fault that spoils every gradient ends the run within one update: no checkpoint has seen it.
    """
    return PPOConfig(
        output_dir=str(folder / name),
        model=ModelConfig(name_or_path=str(folder / MODEL)),
        data=DataConfig(train=str(folder / PROMPTS)),
        rewards=[RewardSpec(path="length", args={"minimum": 12, "maximum": 12, "margin": 12})],
        lora=LoraConfig(r=2, alpha=4),
        sampling=SamplingConfig(max_new_tokens=8),
        num_updates=updates,
        batch_size=8,
        num_generations=2,
        mini_batch_size=4,
        micro_batch_size=4,
        num_ppo_epochs=2,
        max_skipped_steps=STEPS_PER_UPDATE - 1,
        learning_rate=1e-3,
        value_warmup=ValueWarmup(explained_variance=0.5, max_updates=3),
        adaptive_kl_target=0.5,
        adaptive_kl_horizon=400,
        score_normalization="standardize",
        checkpoint=CheckpointConfig(save_steps=CHECKPOINT_EVERY),
        inspect=InspectConfig(prompts=1, every=200),
        tracking=TrackingConfig(wandb="disabled"),
    )
