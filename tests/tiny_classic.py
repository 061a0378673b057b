"""The classic loop on a very small model: prompts, responses, rewards, a trainer."""

from pathlib import Path

import torch
from transformers import AutoTokenizer

from rlhf import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer
from rlhf.config import LoraConfig
from rlhf.models.load import lora_adapters

PROMPTS = ["Show a button saying Save.\n", "Show a button", "Show", "export default function Open() {\n  return"]
RESPONSES = [torch.tensor(ids) for ids in ([31, 40, 52], [40, 300, 41, 99, 33], [77, 1], [35, 36, 37, 38])]
TOKEN_REWARDS = [torch.tensor([1.0, 2.0, 3.0]), 2.5, torch.tensor([0.5, -0.5]), -1.0]
SMALL = {"batch_size": 4, "mini_batch_size": 4, "ppo_epochs": 1}


def make_trainer(folder: Path, peft: bool = False, model=None, **settings) -> PPOTrainer:
    """A trainer on a small model, its reference made by the trainer; `settings` go to the config."""
    arguments = {name: settings.pop(name) for name in ("dataset", "optimizer", "lr_scheduler") if name in settings}
    torch.manual_seed(0)
    if model is None:
        model = AutoModelForCausalLMWithValueHead.from_pretrained(folder)
        if peft:
            adapters = lora_adapters(LoraConfig(r=4), model.pretrained_model)
            model = AutoModelForCausalLMWithValueHead.from_pretrained(folder, peft_config=adapters)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return PPOTrainer(PPOConfig(**SMALL | settings), model, tokenizer=tokenizer, **arguments)


def prompt_ids(folder: Path) -> list[torch.Tensor]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [torch.tensor(tokenizer.encode(prompt)) for prompt in PROMPTS]


def parameters(trainer: PPOTrainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.policy.trainable}
