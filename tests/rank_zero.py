"""What one of two processes does in tests/test_rank_zero.py: argv is a folder with config.json."""

import json
import sys
from pathlib import Path

import torch
from tiny_runs import count_e, make_config

from rlhf.config import InspectConfig
from rlhf.parallel.launch import rank
from rlhf.ppo.trainer import Callback
from rlhf.rewards import RewardSpec
from rlhf.sampling import memory
from rlhf.stages.ppo import run_ppo

torch.set_num_threads(1)
FOLDER = Path(sys.argv[1])


def counted(prompts, completions, **columns):
    """A reward that writes down how many completions each process has scored."""
    with open(FOLDER / f"scored_{rank()}.txt", "a", encoding="utf-8") as file:
        file.write(f"{len(completions)}\n")
    return count_e(prompts, completions)


class Witness(Callback):
    def after_sampling(self, trainer, responses):
        (FOLDER / f"copies_{rank()}.json").write_text(json.dumps(trainer.policy.shortcuts.copies))


if __name__ == "__main__":
    given = json.loads((FOLDER / "config.json").read_text())
    if rank() == 1:
        memory.room = lambda device: 0  # the second process has no memory for a copy of the weights
    config = make_config(
        given["model"],
        given["data"],
        output_dir=str(FOLDER / "run"),
        rewards=[RewardSpec(path="rank_zero.counted")],
        num_updates=3,
        inspect=InspectConfig(prompts=2, every=2),
    )
    run_ppo(config, callbacks=[Witness()])
