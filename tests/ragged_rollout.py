"""A rollout of unequal responses in a folder, for processes that learn from it together."""

import dataclasses
from pathlib import Path

import torch
from tiny_data import write_pairs
from tiny_runs import make_trainer

from rlhf.ppo.rollout_files import save_rollout


def save_ragged_rollout(folder: Path, tiny_models) -> Path:
    """Fill the folder with data and a rollout; returns it."""
    trainer = make_trainer(tiny_models, write_pairs(folder))
    rollout = trainer.update().rollout
    n_tokens = torch.tensor([1, 10, 2, 9, 3, 8, 4, 7]).minimum(rollout.lengths)
    mask = torch.arange(rollout.response_mask.shape[1]) < n_tokens.unsqueeze(-1)
    save_rollout(folder / "rollout", dataclasses.replace(rollout, response_mask=mask), trainer.tokenizer)
    return folder
