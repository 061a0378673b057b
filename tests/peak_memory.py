"""Measured and estimated peak memory of two PPO updates, in a process of their own.

python tests/peak_memory.py MODEL PROMPTS [JSON] prints [measured, estimated] in bytes. The JSON holds options of
PPOConfig, and response_tokens, dtype, checkpointing.
"""

import json
import sys
from pathlib import Path

import torch

import rlhf.sampling.decode
from rlhf.config import DataConfig, ModelConfig, PPOConfig, SamplingConfig
from rlhf.doctor.footprint import footprint
from rlhf.rewards import RewardSpec, RewardSum
from rlhf.stages.ppo import build_trainer


def main(model: str, prompts: str, options: str = "{}") -> None:
    """Two updates: the second one has the optimizer's moments from the start."""
    given = {
        "batch_size": 32,
        "mini_batch_size": 32,
        "micro_batch_size": 32,
        "num_ppo_epochs": 1,
        **json.loads(options),
    }
    sampling = SamplingConfig(max_new_tokens=given.pop("response_tokens", 96))
    base = ModelConfig(
        name_or_path=model,
        dtype=given.pop("dtype", "float32"),
        gradient_checkpointing=given.pop("checkpointing", False),
    )
    data = DataConfig(train=prompts, max_completion_tokens=96)
    rewards = [RewardSpec(path="length", args={"maximum": 100})]
    config = PPOConfig(model=base, data=data, rewards=rewards, sampling=sampling, **given)
    trainer = build_trainer(config, RewardSum.from_specs(config.rewards))
    longest = max(len(prompt.prompt_ids) for prompt in trainer.prompts.prompts)
    estimated = footprint(config, trainer.policy, longest).peak
    never_end(trainer.tokenizer)
    for _ in range(2):
        trainer.update()
    print(json.dumps([peak(), estimated]))


def peak() -> int:
    """Bytes at the most: resident, or on a GPU allocated. (getrusage would count the parent process before exec.)"""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(line.split()[1])


def never_end(tokenizer) -> None:
    """Keep responses from ending, as the estimate assumes, and from tokens that the tokenizer does not know."""
    choose = rlhf.sampling.decode.choose

    def without_eos(logits, sampling, generator):
        logits = logits.clone()
        logits[:, tokenizer.eos_token_id] = -1e9
        logits[:, len(tokenizer) :] = -1e9
        return choose(logits, sampling, generator)

    rlhf.sampling.decode.choose = without_eos


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
