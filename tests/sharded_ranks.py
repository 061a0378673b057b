"""What one of two processes does in tests/test_sharding.py: argv is a folder with given.json and rollout/."""

import json
import os
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from tiny_runs import make_trainer

from rlhf.config import SamplingConfig
from rlhf.errors import UserError
from rlhf.parallel.ranks import Ranks, require_same_weights
from rlhf.policy.sharding import shard_base, sharded
from rlhf.ppo.rollout import policy_outputs
from rlhf.ppo.rollout_files import load_rollout
from rlhf.sampling.responses import sample_responses

torch.set_num_threads(1)
FOLDER = Path(sys.argv[1])
GIVEN = json.loads((FOLDER / "given.json").read_text())
RANKS = Ranks.of(Accelerator())
if "per_machine" in GIVEN:
    os.environ["LOCAL_WORLD_SIZE"] = str(GIVEN["per_machine"])


def held(policy) -> int:
    """Numbers in the frozen weights that this process holds."""
    frozen = (p for p in policy.parameters() if not p.requires_grad)
    return sum(p.to_local().numel() if hasattr(p, "to_local") else p.numel() for p in frozen)


def train_on(rollout, variant: dict) -> tuple[torch.Tensor, dict]:
    """The trainable parameters after the clipped epochs; and how much of the base each process held, when."""
    trainer = make_trainer(GIVEN["models"], GIVEN["data"], **variant)
    shard_base(trainer.policy)
    whole = held(trainer.policy)
    with sharded(trainer.policy):
        share = held(trainer.policy)
        trainer.epochs.run(rollout, 1.0, critic_only=False)
    gathered = held(trainer.policy)
    return (
        torch.cat([p.detach().flatten() for _, p in trainer.policy.trainable]),
        {"whole": whole, "shares": RANKS.exchange(lambda: share), "gathered": gathered},
    )


def unequal_work(variant: dict) -> bool:
    """The first rank samples and evaluates three prompts, the others one: is every number that of an undivided base?"""
    divided, plain = (make_trainer(GIVEN["models"], GIVEN["data"], **variant) for _ in range(2))
    shard_base(divided.policy)
    prompts = plain.prompts.prompts[: 3 if RANKS.is_first else 1]
    sampling = SamplingConfig(max_new_tokens=10 if RANKS.is_first else 5)
    responses = sample_responses(divided.policy, divided.tokenizer, prompts, sampling, divided.generator)
    numbers = []
    for policy in (divided.policy, plain.policy):
        said = policy_outputs(policy, responses, 1.0, 1, with_values=True, with_entropy=True)
        with policy.reference():
            reference = policy_outputs(policy, responses, 1.0, 1, with_values=False, with_entropy=True)
        numbers.append(torch.stack([*said, *reference]))
    return all(RANKS.exchange(lambda: torch.equal(*numbers)))


def other_weights() -> list[str]:
    """What each rank says when one weight of the second one is another."""
    heard, model = "", torch.nn.Linear(3, 3, bias=False)
    model.weight.data.fill_(1.0)
    require_same_weights(RANKS, model)
    model.weight.data[0, 0] += 0.01 * RANKS.index
    try:
        require_same_weights(RANKS, model)
    except UserError as error:
        heard = str(error)
    return RANKS.exchange(lambda: heard)


if __name__ == "__main__":
    from safetensors.torch import save_file

    rollout = load_rollout(FOLDER / "rollout")
    results = {name: train_on(rollout, variant) for name, variant in GIVEN["variants"].items()}
    found = {
        "held": {name: held for name, (_, held) in results.items()},
        "unequal_work": {name: unequal_work(GIVEN["variants"][name]) for name in GIVEN["unequal_work"]},
        "weights": other_weights(),
    }
    if RANKS.is_first:
        save_file({name: parameters for name, (parameters, _) in results.items()}, FOLDER / "parameters.safetensors")
        (FOLDER / "found.json").write_text(json.dumps(found))
    time.sleep(
        1.0
    )  # FSDP keeps gloo's threads (see rlhf.parallel.launch); they give their tensors back before Python ends
