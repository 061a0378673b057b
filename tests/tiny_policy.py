"""A very small policy and a batch for it."""

import torch

from rlhf.config import LoraConfig, ModelConfig
from rlhf.models.load import load_causal_lm
from rlhf.policy.policy import Policy

CRITICS = ["shared", "detached", "adapter", "branch"]


def make_policy(folder, critic="adapter", stirred=True, **options) -> Policy:
    """A policy on a tiny model, its adapters away from zero so that they matter."""
    torch.manual_seed(1)
    policy = Policy.with_lora(
        load_causal_lm(ModelConfig(name_or_path=str(folder))), LoraConfig(r=4, alpha=8), critic, **options
    )
    if stirred:
        for _, parameter in policy.trainable:
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return policy


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three sequences of 5+4, 3+2, 1+6 tokens."""
    torch.manual_seed(2)
    sequence_ids = torch.randint(2, 300, (3, 9))
    lengths = torch.tensor([4, 2, 6])
    return sequence_ids, torch.tensor([5, 3, 1]), torch.arange(6) < lengths.unsqueeze(-1)
