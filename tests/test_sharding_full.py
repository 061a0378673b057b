"""FSDP2 for a model that is trained in full, on real processes (gloo on the CPU), against one process."""

import json
from pathlib import Path

import pytest
import torch
from processes import launch
from ragged_rollout import save_ragged_rollout
from safetensors.torch import load_file
from tiny_runs import make_trainer

from rlhf.config import ScratchModel
from rlhf.models.load import build_from_scratch
from rlhf.policy.files import load_policy
from rlhf.ppo.rollout_files import load_rollout

FULL = {"lora": None, "learning_rate": 1e-3}
VARIANTS = {
    "gpt2": {"architecture": "gpt2", "critic": "shared", "mini_batch_size": 3, "micro_batch_size": 1, **FULL},
    "llama": {"architecture": "llama", "critic": "separate", "micro_batch_size": 2, **FULL},
    "checkpointing": {"architecture": "gpt2", "critic": "detached", "gradient_checkpointing": True, **FULL},
}
UNEQUAL = ["gpt2", "llama"]
pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def rollout(tiny_models, tmp_path_factory) -> Path:
    """A folder with data and a ragged rollout."""
    return save_ragged_rollout(tmp_path_factory.mktemp("rollout"), tiny_models)


def train_together(models, folder, variants, processes, **given) -> dict:
    given |= {"models": {name: str(path) for name, path in models.items()}, "variants": variants}
    (folder / "given.json").write_text(json.dumps(given | {"data": str(folder / "pairs.jsonl")}))
    done = launch("tests/sharded_full_ranks.py", str(folder), processes=processes)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def two_processes(tiny_models, rollout, tmp_path_factory) -> dict:
    wider, _ = build_from_scratch(ScratchModel(architecture="gpt2", hidden_size=64, layers=2, heads=2), ["some words"])
    other = tmp_path_factory.mktemp("other")
    wider.save_pretrained(other)
    return train_together(tiny_models | {"other": other}, rollout, VARIANTS, 2, unequal_work=UNEQUAL, everything=True)


def without_key_bias(name: str, x: torch.Tensor) -> torch.Tensor:
    """Attention does not depend on the bias of the keys: its gradient is rounding, which Adam makes a step of."""
    return torch.cat([x.chunk(3)[0], x.chunk(3)[2]]) if name.endswith("c_attn.bias") else x


def assert_trains_alike(tiny_models, folder, name, found):
    """Also in gradients and their norms, since Adam's first steps do not depend on the scale of what it is given.

    Adam makes much of a gradient that is rounding: of a few weights a hundredth of a step.
    """
    trainer = make_trainer(tiny_models, str(folder / "pairs.jsonl"), **VARIANTS[name])
    metrics = trainer.epochs.run(load_rollout(folder / "rollout"), 1.0, critic_only=False)
    together = load_file(folder / f"{name}.safetensors")
    assert len(together) == 2 * len(trainer.policy.trainable)
    apart = []
    for parameter, p in trainer.policy.trainable:
        ours, theirs = (without_key_bias(parameter, x) for x in (p.detach(), together[f"weight {parameter}"]))
        apart.append((ours - theirs).abs().flatten())
        assert apart[-1].max() < 1e-5, parameter
        scale = p.grad.abs().max()
        assert (p.grad - together[f"gradient {parameter}"]).abs().max() < max(1e-4 * scale, 1e-6), parameter
    assert (torch.cat(apart) > 1e-6).float().mean() < 1e-4
    assert metrics["policy/grad_norm"] > 2  # it was clipped
    for key in ("policy/grad_norm", "critic/grad_norm", "policy/loss", "critic/loss", "policy/steps"):
        assert found["metrics"][key] == pytest.approx(metrics[key], rel=1e-4, abs=1e-6), key


@pytest.mark.parametrize("name", VARIANTS)
def test_two_processes_train_like_one(two_processes, tiny_models, rollout, name):
    assert_trains_alike(tiny_models, rollout, name, two_processes[name])


@pytest.mark.parametrize("name", VARIANTS)
def test_weights_gradients_moments_and_reference_are_divided(two_processes, tiny_models, rollout, name):
    policy = make_trainer(tiny_models, str(rollout / "pairs.jsonl"), **VARIANTS[name]).policy

    def sizes(parameters) -> tuple[int, int]:
        numbers = {name: p.numel() for name, p in parameters}
        in_blocks = sum(n for name, n in numbers.items() if ".h." in name or "layers." in name)
        return in_blocks, sum(numbers.values()) - in_blocks

    trained, of_reference = sizes(policy.trainable), sizes(policy.frozen_reference.named_parameters())
    expected = {"weights": (1, trained), "gradients": (1, trained), "moments": (2, trained)}
    for what, (times, (in_blocks, rest)) in (expected | {"reference": (1, of_reference)}).items():
        shares = [held[what] / times - rest for held in two_processes[name]["held"]]
        assert sum(shares) == in_blocks, what
        assert max(shares) < 0.51 * in_blocks, what


@pytest.mark.parametrize("name", UNEQUAL)
@pytest.mark.parametrize("stays_whole", [False, True])
def test_processes_with_different_work_keep_up_with_each_other(two_processes, name, stays_whole):
    """Tokens, and what policy, critic and reference say, are those of whole models, bit for bit."""
    found = two_processes[f"unequal_work {name}"][stays_whole]
    assert found["is_same"] == [True, True]
    assert found["share"] == found["after"] < found["at_most"]


@pytest.mark.parametrize("name", UNEQUAL)
@pytest.mark.parametrize("fails_in_block", [0, 1])
def test_a_process_that_fails_within_a_pass_lets_the_others_finish(two_processes, name, fails_in_block):
    first, second = two_processes[f"cut_short {name}"][fails_in_block]
    assert first == "OtherRankError: rank 1 failed (RuntimeError: no memory for the activations); afterwards as before"
    assert second == "RuntimeError: no memory for the activations; afterwards as before"


def test_a_gradient_that_is_not_finite_on_one_process_is_skipped_on_all(two_processes):
    assert two_processes["poisoned"] == {"skipped": [1.0, 1.0], "same": [True, True]}


def test_the_warm_up_trains_the_critic_alone(two_processes):
    found = two_processes["warmed_up"]
    assert found["apart"] < 1e-6
    assert (found["critic"], found["policy"]) == (True, False)


def test_a_share_is_not_taken_for_the_policy(two_processes):
    assert "save it within rlhf.policy.whole.whole_on_first" in two_processes["saved_too_early"]


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_bfloat16_is_what_float32_weights_are_multiplied_in(two_processes, architecture):
    """Passes are those of a model in bfloat16, bit for bit; steps of 1e-5 are not lost."""
    found = two_processes["bfloat16"][architecture]
    assert found["is_same"] == [True, True]
    assert found["types"] == ["torch.float32"]
    assert found["moved_least"] > 0.95


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_a_run_that_was_cut_ends_as_if_it_had_not_been(two_processes, rollout, critic):
    whole, cut = (rollout / f"{critic} {name}" / "policy" for name in ("whole", "cut"))
    files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(cut) for p in cut.rglob("*") if p.is_file())
    assert [f for f in files if (whole / f).read_bytes() != (cut / f).read_bytes()] == []


@pytest.mark.parametrize(("critic", "architecture"), [("shared", "gpt2"), ("separate", "llama")])
def test_the_policy_folder_is_that_of_a_whole_model(
    two_processes, tiny_models, rollout, tmp_path, critic, architecture
):
    from transformers import AutoModelForCausalLM

    from rlhf.policy.files import save_policy

    folder = rollout / f"{critic} whole" / "policy"
    options = VARIANTS["gpt2"] | {"architecture": architecture, "critic": critic}
    save_policy(make_trainer(tiny_models, str(rollout / "pairs.jsonl"), **options).policy, tmp_path)
    for part in (Path(), Path("critic")) if critic == "separate" else (Path(),):
        ours, theirs = (load_file(place / part / "model.safetensors") for place in (folder, tmp_path))
        assert {n: (x.shape, x.dtype) for n, x in ours.items()} == {n: (x.shape, x.dtype) for n, x in theirs.items()}
        assert (folder / part / "config.json").read_text() == (tmp_path / part / "config.json").read_text()
    plain, policy = AutoModelForCausalLM.from_pretrained(folder), load_policy(folder)
    state = policy.language_model.state_dict()
    assert all(torch.equal(x, state[name]) for name, x in plain.state_dict().items())
    moved = [
        not torch.equal(x, y) for x, y in zip(plain.parameters(), policy.frozen_reference.parameters(), strict=True)
    ]
    assert all(moved)


def test_weights_of_another_shape_are_refused_on_all(two_processes):
    first, second = two_processes["another_model"]
    assert "of the stored policy has another shape; it belongs to another model" in first
    assert second == f"OtherRankError: rank 0 failed ({first})"


def test_two_machines_of_two_processes_each_train_like_one(tiny_models, rollout):
    """Every process holds a half, not a quarter; gradients are added up over the machines too."""
    variants = {name: VARIANTS[name] for name in ("gpt2", "llama")}
    found = train_together(tiny_models, rollout, variants, 4, unequal_work=["llama"], everything=False, per_machine=2)
    assert [each["is_same"] for each in found["unequal_work llama"]] == [[True] * 4] * 2
    for name in variants:
        assert_trains_alike(tiny_models, rollout, name, found[name])
        first, second, third, fourth = (held["weights"] for held in found[name]["held"])
        assert (first, second) == (third, fourth)
