"""FSDP2 on two real processes (gloo on the CPU) against one process with the whole base."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from processes import launch
from safetensors.torch import load_file
from tiny_data import write_pairs
from tiny_runs import make_trainer

from rlhf.errors import UserError
from rlhf.policy.sharding import shard_base, sharded
from rlhf.ppo.rollout_files import save_rollout

VARIANTS = {
    "gpt2": {"architecture": "gpt2", "mini_batch_size": 3, "micro_batch_size": 1},
    "llama": {"architecture": "llama", "mini_batch_size": 4, "micro_batch_size": 2, "critic": "shared"},
    "gpt2_checkpointing": {"architecture": "gpt2", "gradient_checkpointing": True},
    "llama_branch": {"architecture": "llama", "critic": "branch"},
    "llama_checkpointing": {"architecture": "llama", "gradient_checkpointing": True, "critic": "detached"},
}


@pytest.fixture(scope="module")
def two_processes(tiny_models, tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A folder that two processes worked in, and what one process makes of the same ragged rollout."""
    folder = tmp_path_factory.mktemp("sharding")
    data = write_pairs(folder)
    given = {"models": {name: str(path) for name, path in tiny_models.items()}, "data": data, "variants": VARIANTS}
    (folder / "given.json").write_text(json.dumps(given))
    trainer = make_trainer(tiny_models, data)
    rollout = trainer.update().rollout
    n_tokens = torch.tensor([1, 10, 2, 9, 3, 8, 4, 7]).minimum(rollout.lengths)
    mask = torch.arange(rollout.response_mask.shape[1]) < n_tokens.unsqueeze(-1)
    rollout = dataclasses.replace(rollout, response_mask=mask)
    save_rollout(folder / "rollout", rollout, trainer.tokenizer)
    alone = {}
    for name, variant in VARIANTS.items():
        fresh = make_trainer(tiny_models, data, **variant)
        fresh.epochs.run(rollout, 1.0, critic_only=False)
        alone[name] = torch.cat([p.detach().flatten() for _, p in fresh.policy.trainable])
    done = launch("tests/sharded_ranks.py", str(folder))
    assert done.returncode == 0, done.stderr
    return folder, alone


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_a_divided_base_trains_like_a_whole_one(two_processes, name):
    folder, alone = two_processes
    together = load_file(folder / "parameters.safetensors")[name]
    assert (
        alone[name] - together
    ).abs().max() < 1e-4  # a hundredth of a step: Adam makes much of a gradient that is rounding


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_each_process_holds_half_of_the_blocks_during_the_epochs_and_all_outside(
    two_processes, tiny_models, pairs, name
):
    folder, _ = two_processes
    held = json.loads((folder / "found.json").read_text())["held"][name]
    policy = make_trainer(tiny_models, pairs, **VARIANTS[name]).policy
    frozen = {name: p.numel() for name, p in policy.named_parameters() if not p.requires_grad}
    in_blocks = sum(n for name, n in frozen.items() if ".h." in name or ".layers." in name)
    rest = sum(frozen.values()) - in_blocks
    assert held["whole"] == held["gathered"] == in_blocks + rest
    assert sum(held["shares"]) == in_blocks + 2 * rest
    assert max(held["shares"]) - rest < 0.51 * in_blocks


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_processes_with_different_work_need_not_wait_for_each_other(two_processes, architecture):
    """And policy, critic and reference say what those of an undivided base say, bit for bit."""
    folder, _ = two_processes
    assert json.loads((folder / "found.json").read_text())["unequal_work"][architecture]


@pytest.mark.slow
def test_another_weight_on_one_process_is_noticed(two_processes):
    folder, _ = two_processes
    heard = json.loads((folder / "found.json").read_text())["weights"]
    assert heard[0].startswith("rank 1 has loaded other weights than rank 0")
    assert heard[1].startswith("rank 0 has loaded other weights than rank 1")


def test_a_whole_base_stays_as_it_is(tiny_models, pairs):
    policy = make_trainer(tiny_models, pairs).policy
    before = [id(p) for p in policy.parameters()]
    with sharded(policy):
        assert [id(p) for p in policy.parameters()] == before


def test_models_that_cannot_be_divided_are_refused(tiny_models, pairs):
    policy = make_trainer(tiny_models, pairs).policy
    policy.language_model._no_split_modules = None
    with pytest.raises(UserError, match="GPT2LMHeadModel does not name its transformer blocks"):
        shard_base(policy)
    policy.is_peft = False
    with pytest.raises(UserError, match="the model is trained in full"):
        shard_base(policy)
