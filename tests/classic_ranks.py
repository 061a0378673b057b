"""What each of two processes does in tests/test_classic.py: argv is the model's folder and the file to write."""

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_classic import RESPONSES, TOKEN_REWARDS, make_trainer, parameters, prompt_ids

from rlhf import AutoModelForCausalLMWithValueHead

if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    torch.manual_seed(rank)  # a new value head on each
    model = AutoModelForCausalLMWithValueHead.from_pretrained(folder)
    trainer = make_trainer(folder, model=model, batch_size=2, mini_batch_size=1, ppo_epochs=2, learning_rate=1e-3)
    mine = slice(2 * rank, 2 * rank + 2)
    stats = trainer.step(prompt_ids(folder)[mine], RESPONSES[mine], TOKEN_REWARDS[mine])
    result = parameters(trainer) | {"scores": torch.tensor(stats["ppo/mean_scores"])}
    ranks = trainer.native.ranks
    for other in ranks.exchange(lambda: result):
        assert all(torch.equal(other[name], result[name]) for name in result)
    if ranks.is_first:
        save_file(result, sys.argv[2])
