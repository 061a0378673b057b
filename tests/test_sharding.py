"""FSDP2 on two real processes (gloo on the CPU) against one process with the whole base."""

import json
from pathlib import Path

import pytest
import torch
import vllm_standin
from processes import launch
from ragged_rollout import save_ragged_rollout
from safetensors.torch import load_file
from tiny_runs import make_trainer

from rlhf.errors import UserError
from rlhf.models.divided import mesh_of_machine, require_blocks, without_weights
from rlhf.models.shares import load_optimizer
from rlhf.policy.sharding import in_step
from rlhf.ppo.rollout_files import load_rollout

VARIANTS = {
    "gpt2": {"architecture": "gpt2", "mini_batch_size": 3, "micro_batch_size": 1},
    "llama": {"architecture": "llama", "mini_batch_size": 4, "micro_batch_size": 2, "critic": "shared"},
    "gpt2_checkpointing": {"architecture": "gpt2", "gradient_checkpointing": True},
    "llama_branch": {"architecture": "llama", "critic": "branch"},
    "llama_checkpointing": {"architecture": "llama", "gradient_checkpointing": True, "critic": "detached"},
}
UNEQUAL = ["gpt2", "llama", "llama_branch"]


@pytest.fixture(scope="module")
def rollout(tiny_models, tmp_path_factory) -> Path:
    """A folder with data and a ragged rollout."""
    return save_ragged_rollout(tmp_path_factory.mktemp("rollout"), tiny_models)


def train_alone(tiny_models, folder, variant) -> torch.Tensor:
    """What one process with a whole base makes of the rollout."""
    trainer = make_trainer(tiny_models, str(folder / "pairs.jsonl"), **variant)
    trainer.epochs.run(load_rollout(folder / "rollout"), 1.0, critic_only=False)
    return torch.cat([p.detach().flatten() for _, p in trainer.policy.trainable])


def train_together(tiny_models, folder, variants, processes, **given) -> tuple[dict[str, torch.Tensor], dict]:
    """What several make of it, and what they found on the way."""
    models = {name: str(path) for name, path in tiny_models.items()}
    given |= {"models": models, "data": str(folder / "pairs.jsonl"), "variants": variants}
    (folder / "given.json").write_text(json.dumps(given))
    done = launch("tests/sharded_ranks.py", str(folder), processes=processes)
    assert done.returncode == 0, done.stderr
    return load_file(folder / "parameters.safetensors"), json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A Llama of eight blocks that hold nearly all of its weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 8, "num_attention_heads": 4}
    folder = tmp_path_factory.mktemp("large")
    LlamaForCausalLM(LlamaConfig(vocab_size=64, tie_word_embeddings=True, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def two_processes(tiny_models, rollout, large) -> tuple[dict[str, torch.Tensor], dict]:
    url = vllm_standin.Serve(tiny_models["gpt2"], logprobs_mode="processed_logprobs").url
    return train_together(tiny_models, rollout, VARIANTS, 2, unequal_work=UNEQUAL, large=str(large), vllm=url)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_a_divided_base_trains_like_a_whole_one(two_processes, tiny_models, rollout, name):
    alone, together = train_alone(tiny_models, rollout, VARIANTS[name]), two_processes[0][name]
    # a hundredth of a step: Adam makes much of a gradient that is rounding
    assert (alone - together).abs().max() < 1e-4


def held_by(tiny_models, folder, variant) -> tuple[int, int]:
    """Frozen numbers of a whole base: in its blocks, and elsewhere."""
    policy = make_trainer(tiny_models, str(folder / "pairs.jsonl"), **variant).policy
    frozen = {name: p.numel() for name, p in policy.named_parameters() if not p.requires_grad}
    in_blocks = sum(n for name, n in frozen.items() if ".h." in name or ".layers." in name)
    return in_blocks, sum(frozen.values()) - in_blocks


def a_share_and_a_block(in_blocks: int, rest: int, n_blocks: int = 2) -> float:
    """The most that one of two processes may hold; biases of odd length are not cut into equal parts."""
    return rest + in_blocks / n_blocks + 0.51 * in_blocks * (n_blocks - 1) / n_blocks


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_each_process_holds_half_of_the_blocks_and_the_whole_of_one_while_it_runs(
    two_processes, tiny_models, rollout, name
):
    held = two_processes[1]["held"][name]
    in_blocks, rest = held_by(tiny_models, rollout, VARIANTS[name])
    assert sum(held["shares"]) == in_blocks + 2 * rest
    assert max(held["shares"]) - rest < 0.51 * in_blocks
    assert held["after"] == held["shares"][0]
    assert held["shares"][0] < held["at_most"] <= a_share_and_a_block(in_blocks, rest) < in_blocks + rest


@pytest.mark.slow
@pytest.mark.parametrize("name", UNEQUAL)
def test_processes_with_different_work_keep_up_with_each_other(two_processes, tiny_models, rollout, name):
    """Tokens, and what policy, critic and reference say, are those of an undivided base, bit for bit."""
    found = two_processes[1][f"unequal_work {name}"]
    in_blocks, rest = held_by(tiny_models, rollout, VARIANTS[name])
    assert found["is_same"] == [True, True]
    assert found["share"] < found["at_most"] <= a_share_and_a_block(in_blocks, rest)
    assert found["after"] == found["share"]


@pytest.mark.slow
@pytest.mark.parametrize("name", UNEQUAL)
def test_blocks_stay_whole_between_updates_if_asked_to(two_processes, tiny_models, rollout, name):
    found = two_processes[1][f"unequal_work {name} gathered"]
    assert found["is_same"] == [True, True]
    assert found["at_most"] == sum(held_by(tiny_models, rollout, VARIANTS[name]))
    assert found["after"] == found["share"]


@pytest.mark.slow
@pytest.mark.parametrize("name", UNEQUAL)
@pytest.mark.parametrize("fails_in_block", [0, 1])
def test_a_process_that_fails_within_a_pass_lets_the_others_finish(two_processes, name, fails_in_block):
    first, second = two_processes[1][f"cut_short {name}"][fails_in_block]
    assert first == "OtherRankError: rank 1 failed (RuntimeError: no memory for the activations); afterwards as before"
    assert second == "RuntimeError: no memory for the activations; afterwards as before"


@pytest.mark.slow
def test_a_vllm_server_that_loads_adapters_decodes_beside_a_divided_base(two_processes):
    found = two_processes[1]["vllm"]
    assert found["apart"] < 1e-4 < found["moved"]
    assert found["stayed_divided"] == [True, True]
    assert all("no process has whole weights to send" in heard for heard in found["weights"])


@pytest.mark.slow
def test_loading_takes_a_share_and_a_block(two_processes):
    """Beside what is not divided; but the first process of a machine reads all of it. On a busy machine gloo has not
    always let go of one block when the next comes."""
    found = two_processes[1]["loaded"]
    _, second = found["at_most"]
    assert found["is_same"] == [True, True]
    block = found["blocks"] / found["n_blocks"]
    assert second < 0.51 * found["blocks"] + 2.1 * block + found["rest"] < 0.85 * found["blocks"]


@pytest.mark.slow
def test_a_model_that_is_not_there_is_one_line(two_processes):
    first, second = two_processes[1]["missing"]
    assert first == "UserError: model path './nowhere' does not exist; train that stage first or correct the path"
    assert second == f"OtherRankError: rank 0 failed ({first})"


@pytest.mark.long
def test_two_machines_of_two_processes_each_divide_the_base_among_themselves(tiny_models, rollout):
    """Every process holds a half, not a quarter, and what is learned is the same."""
    variants = {name: VARIANTS[name] for name in ("llama", "gpt2_checkpointing")}
    together, found = train_together(tiny_models, rollout, variants, 4, unequal_work=["llama"], per_machine=2)
    assert found["unequal_work llama"]["is_same"] == [True] * 4
    for name, variant in variants.items():
        in_blocks, rest = held_by(tiny_models, rollout, variant)
        first, second, third, fourth = (share - rest for share in found["held"][name]["shares"])
        assert first + second == third + fourth == in_blocks
        assert max(first, second, third, fourth) < 0.51 * in_blocks
        assert (train_alone(tiny_models, rollout, variant) - together[name]).abs().max() < 1e-4


def test_machines_with_unequal_numbers_of_processes_are_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    with pytest.raises(UserError, match="3 processes on machines of 2 each"):
        mesh_of_machine("cpu")


@pytest.mark.slow
def test_another_weight_on_one_process_is_noticed(two_processes):
    heard = two_processes[1]["weights"]
    assert heard[0].startswith("rank 1 has loaded other weights than rank 0")
    assert heard[1].startswith("rank 0 has loaded other weights than rank 1")


def test_a_whole_base_stays_as_it_is(tiny_models, pairs):
    policy = make_trainer(tiny_models, pairs).policy
    before = [id(p) for p in policy.parameters()]
    with in_step(policy):
        assert [id(p) for p in policy.parameters()] == before


def test_moments_of_other_groups_are_refused():
    """Those of divided weights are a group of their own: a checkpoint goes on as it was launched."""
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    apart = torch.optim.AdamW([{"params": [weight]} for weight in weights])
    with pytest.raises(UserError, match=r"groups of \[1, 1\] parameters, and this run's of \[2\]"):
        load_optimizer(torch.optim.AdamW(weights), apart.state_dict())


def test_models_that_cannot_be_divided_are_refused(tiny_models, pairs, monkeypatch):
    model = make_trainer(tiny_models, pairs).policy.language_model
    model._no_split_modules = None
    with pytest.raises(UserError, match="GPT2LMHeadModel does not name its transformer blocks"):
        require_blocks(model)
    model.register_forward_hook(lambda *_: None)
    with pytest.raises(UserError, match="the model cannot be sent from one process to the others"):
        without_weights(model)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    for options in ({}, {"lora": None, "critic": "separate"}):
        with pytest.raises(UserError, match="accelerate was told to use fsdp on one process"):
            make_trainer(tiny_models, pairs, **options)
