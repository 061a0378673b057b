"""What one of several processes does in tests/test_sharding_full.py, where all weights are trained."""

import dataclasses
import json
import os
import time
from pathlib import Path

import torch
from sharded_ranks import FOLDER, GIVEN, RANKS, cut_short, make, unequal_work
from tiny_runs import Crash, make_config
from torch.distributed.tensor import DTensor

from rlhf.config import CheckpointConfig, ModelConfig
from rlhf.errors import OtherRankError, UserError
from rlhf.models.head import head_of
from rlhf.models.load import load_causal_lm
from rlhf.policy.files import read_weights, save_policy
from rlhf.ppo.rollout_files import load_rollout
from rlhf.rewards import RewardSum
from rlhf.stages.ppo import build_trainer, run_ppo


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()


def n_local(tensors) -> int:
    """Numbers that this process holds of some tensors."""
    return sum((x.to_local() if isinstance(x, DTensor) else x).numel() for x in tensors)


def train_on(rollout, variant: dict) -> tuple[dict[str, torch.Tensor], dict]:
    """Weights and last clipped gradients after the clipped epochs, whole; the metrics, and what each process holds."""
    trainer = make("fsdp", variant)
    policy, epochs = trainer.policy, trainer.epochs
    metrics = epochs.run(rollout, 1.0, critic_only=False)
    trained = [p for _, p in policy.trainable]
    held = {
        "weights": n_local(trained),
        "gradients": n_local(p.grad for p in trained),
        "moments": n_local(x for p in trained for name, x in epochs.optimizer.state[p].items() if name != "step"),
        "reference": n_local(policy.frozen_reference.parameters()),
    }
    weights = {f"weight {name}": whole(p) for name, p in policy.trainable}
    gradients = {f"gradient {name}": whole(p.grad) for name, p in policy.trainable}
    return weights | gradients, {"metrics": metrics, "held": RANKS.gather(held)}


def poisoned(rollout, variant: dict) -> dict:
    """A rollout of which one row, on one process, gives NaN: what was skipped, and whether any weight moved."""
    trainer = make("fsdp", variant | {"mini_batch_size": 8, "num_ppo_epochs": 1})
    before = [whole(p).clone() for _, p in trainer.policy.trainable]
    advantages = rollout.advantages.clone()
    advantages[0] = float("nan")
    metrics = trainer.epochs.run(dataclasses.replace(rollout, advantages=advantages), 1.0, critic_only=False)
    same = all(torch.equal(old, whole(p)) for old, (_, p) in zip(before, trainer.policy.trainable, strict=True))
    return {"skipped": RANKS.gather(metrics["policy/skipped_steps"]), "same": RANKS.gather(same)}


def warmed_up() -> dict:
    """The critic alone is trained, of divided models and of whole ones: how far it is apart, and what has moved."""
    variant = GIVEN["variants"]["llama"]
    trainers = [make(engine, variant) for engine in ("ddp", "fsdp")]
    before = [whole(p).clone() for _, p in trainers[1].policy.trainable]
    for trainer in trainers:
        trainer.epochs.run(load_rollout(FOLDER / "rollout"), 1.0, critic_only=True)
    of_critic = {id(p) for p in trainers[1].policy.critic_parameters()}
    pairs = zip(trainers[0].policy.trainable, trainers[1].policy.trainable, strict=True)
    apart = max((whole(ours) - theirs.detach()).abs().max().item() for (_, theirs), (_, ours) in pairs)
    moved = {True: [], False: []}
    for old, (_, p) in zip(before, trainers[1].policy.trainable, strict=True):
        moved[id(p) in of_critic].append(not torch.equal(old, whole(p)))
    return {"apart": apart, "critic": all(moved[True]), "policy": any(moved[False])}


def saved_too_early() -> str:
    """What is said where weights would be written that are a share."""
    try:
        save_policy(make("fsdp", GIVEN["variants"]["gpt2"]).policy, FOLDER / "too_early")
    except UserError as error:
        return str(error)
    return "nothing"


def in_bfloat16(architecture: str) -> dict:
    """Float32 weights multiplied in bfloat16, against the model that is loaded in bfloat16."""
    os.environ.update(ACCELERATE_USE_FSDP="true", FSDP_VERSION="2")
    name = GIVEN["models"][architecture]
    model = ModelConfig(name_or_path=name, dtype="bfloat16")
    options = {"model": model, "critic": "separate", "lora": None}
    config = dataclasses.replace(make_config(name, GIVEN["data"]), **options)
    trainer = build_trainer(config, RewardSum.from_specs(config.rewards))
    policy, plain = trainer.policy, load_causal_lm(model)
    ids = torch.arange(24).view(2, 12)
    with torch.no_grad():
        expected = plain.base_model(input_ids=ids, use_cache=False).last_hidden_state
        found = [policy.features(ids), policy.wrapper.critic_trunk(input_ids=ids, use_cache=False).last_hidden_state]
        with policy.reference():
            found.append(policy.features(ids))
        logits = [head_of(plain)(expected), head_of(policy.language_model)(found[0])]
    is_same = all(torch.equal(expected, x) for x in found) and torch.equal(*logits)
    before = [whole(p).clone() for _, p in policy.trainable]
    trainer.epochs.set_learning_rates(1e-3)  # a step of 1e-5
    for _, p in policy.trainable:
        p.grad = torch.ones_like(p)
    trainer.epochs.optimizer.step()
    moved = [(whole(p) != old).float().mean().item() for old, (_, p) in zip(before, policy.trainable, strict=True)]
    types = {str(p.dtype) for _, p in policy.trainable} | {str(p.dtype) for p in trained_moments(trainer)}
    return {"is_same": RANKS.gather(is_same), "types": sorted(types), "moved_least": min(moved)}


def trained_moments(trainer) -> list[torch.Tensor]:
    return [x for state in trainer.epochs.optimizer.state.values() for name, x in state.items() if name != "step"]


def runs(critic: str, architecture: str) -> None:
    """A whole run and one that was cut: their folders are compared by the test."""
    os.environ.update(ACCELERATE_USE_FSDP="true", FSDP_VERSION="2")

    def config(name: str):
        return make_config(
            GIVEN["models"][architecture], GIVEN["data"], output_dir=str(FOLDER / f"{critic} {name}"), critic=critic,
            lora=None, learning_rate=1e-3, num_updates=3, checkpoint=CheckpointConfig(save_steps=1),
        )  # fmt: skip

    run_ppo(config("whole"))
    try:
        run_ppo(config("cut"), callbacks=[Crash(at=3)])
    except (RuntimeError, OtherRankError):
        run_ppo(config("cut"))


def another_model() -> list[str]:
    """What each process says of a folder with weights of another shape."""
    policy = make("fsdp", {"architecture": "gpt2", "lora": None, "critic": "shared"}).policy
    heard = "nothing"
    try:
        read_weights(policy.language_model, Path(GIVEN["models"]["other"]))
    except UserError as error:
        heard = f"{type(error).__name__}: {error}"
    return RANKS.gather(heard)


if __name__ == "__main__":
    from safetensors.torch import save_file

    rollout, found = load_rollout(FOLDER / "rollout"), {}
    for name, variant in GIVEN["variants"].items():
        tensors, found[name] = train_on(rollout, variant)
        if RANKS.is_first:
            save_file({key: x.contiguous().clone() for key, x in tensors.items()}, FOLDER / f"{name}.safetensors")
    for name in GIVEN["unequal_work"]:
        variant = GIVEN["variants"][name]
        found[f"unequal_work {name}"] = [unequal_work(variant, reshard_after_forward=on) for on in (True, False)]
        found[f"cut_short {name}"] = [cut_short(variant, fails_in_block) for fails_in_block in (0, 1)]
    if GIVEN["everything"]:
        found |= {"warmed_up": warmed_up(), "saved_too_early": saved_too_early()}
        found["poisoned"] = poisoned(rollout, GIVEN["variants"]["gpt2"])
        found["bfloat16"] = {architecture: in_bfloat16(architecture) for architecture in ("gpt2", "llama")}
        found["another_model"] = another_model()
        runs("shared", "gpt2")
        runs("separate", "llama")
    if RANKS.is_first:
        (FOLDER / "found.json").write_text(json.dumps(found))
    time.sleep(1.0)  # as in sharded_ranks.py
