"""Native PPO on all weights of a model (lora: null): reference, critics, files, and what is refused."""

import copy
import dataclasses
import json
import warnings

import pytest
import torch
from tiny_policy import batch
from tiny_runs import COUNT_E, Crash, make_config, make_trainer

from rlhf.config import (
    DataConfig,
    EvaluateConfig,
    GenerateConfig,
    LoraConfig,
    ModelConfig,
    RewardModelConfig,
    SamplingConfig,
    SFTConfig,
    ValueWarmup,
)
from rlhf.doctor.examination import examine
from rlhf.doctor.footprint import footprint
from rlhf.errors import UserError
from rlhf.models.load import load_causal_lm
from rlhf.policy.files import is_policy_folder, load_policy, read_policy, save_merged, save_policy
from rlhf.policy.policy import Policy
from rlhf.rewards import RewardSum
from rlhf.stages.evaluate import run_evaluate
from rlhf.stages.generate import run_generate
from rlhf.stages.hf_trainer import dtype_of_weights
from rlhf.stages.ppo import build_trainer, run_ppo

CRITICS = ["shared", "detached", "separate"]
ARCHITECTURES = ["gpt2", "llama"]
FULL = {"lora": None, "learning_rate": 1e-3}


def full_trainer(tiny_models, pairs, critic="shared", architecture="gpt2", **options):
    return make_trainer(tiny_models, pairs, architecture, critic=critic, **FULL | options)


def plain_model(tiny_models, architecture="gpt2", **options):
    return load_causal_lm(ModelConfig(name_or_path=str(tiny_models[architecture]), **options))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("critic", CRITICS)
def test_updates_move_every_weight_and_the_reference_stays(tiny_models, pairs, architecture, critic):
    trainer = full_trainer(tiny_models, pairs, critic, architecture)
    policy, before = trainer.policy, plain_model(tiny_models, architecture)
    metrics = trainer.update().metrics
    assert metrics["objective/kl"] == pytest.approx(0.0, abs=1e-4)
    assert metrics["policy/ratio_first_minibatch"] == pytest.approx(1.0, abs=1e-6)
    assert metrics["sampling/ratio_max"] == pytest.approx(1.0, abs=1e-4)
    same = [n for n, p in before.named_parameters() if torch.equal(p, policy.language_model.get_parameter(n))]
    assert same == []
    for name, parameter in before.named_parameters():
        assert torch.equal(parameter, policy.frozen_reference.get_parameter(name))
    second = trainer.update().metrics
    assert second["objective/kl"] != 0.0
    assert second["critic/loss"] > 0
    if critic == "separate":
        trunk = policy.wrapper.critic_trunk
        moved = [not torch.equal(p, before.base_model.get_parameter(n)) for n, p in trunk.named_parameters()]
        assert all(moved)
        assert not any(p is q for p in trunk.parameters() for q in policy.language_model.parameters())


@pytest.mark.parametrize("critic", CRITICS)
def test_gradients_are_those_of_the_plain_way(tiny_models, critic):
    """Through transformers' own logits, [B, L, V] of them, and a linear head on its last hidden states."""
    policy = Policy.in_full(plain_model(tiny_models), critic)
    torch.manual_seed(3)
    head = policy.wrapper.v_head.summary
    head.weight.data.normal_()
    ids, prompt_lengths, mask = batch()
    output = policy(ids, prompt_lengths, mask, temperature=0.7)
    (output.logprobs.sum() + (output.values**2).sum()).backward()
    ours = {name: p.grad.clone() for name, p in policy.trainable}

    model, trunk = plain_model(tiny_models), plain_model(tiny_models).base_model
    result = model(input_ids=ids, output_hidden_states=True)
    hidden = {"shared": result.hidden_states[-1], "detached": result.hidden_states[-1].detach()}
    features = hidden[critic] if critic in hidden else trunk(input_ids=ids).last_hidden_state
    logprobs = (result.logits / 0.7).log_softmax(-1)
    weight, loss = head.weight.detach().clone().requires_grad_(), 0.0
    for row in range(3):
        for t in range(int(mask[row].sum())):
            at = int(prompt_lengths[row]) + t
            value = features[row, at - 1] @ weight[0] + head.bias.item()
            loss = loss + logprobs[row, at - 1, ids[row, at]] + value**2
    loss.backward()
    for name, parameter in model.named_parameters():
        assert_near(ours[f"wrapper.pretrained_model.{name}"], parameter.grad, name)
    assert_near(ours["wrapper.v_head.summary.weight"], weight.grad, "head")
    if critic == "separate":
        for name, parameter in trunk.named_parameters():
            assert_near(ours[f"wrapper.critic_trunk.{name}"], parameter.grad, name)


def assert_near(ours, expected, name):
    """Up to rounding at the scale of the largest entry; some entries are differences of large terms."""
    scale = float(expected.abs().max())
    assert scale > 0, name
    assert float((ours - expected).abs().max()) <= 1e-4 * scale, name


@pytest.mark.parametrize("critic", CRITICS)
def test_warmup_leaves_the_policy_and_its_moments_alone(tiny_models, pairs, critic):
    trainer = full_trainer(tiny_models, pairs, critic, value_warmup=ValueWarmup(explained_variance=2.0, max_updates=1))
    before = copy.deepcopy(trainer.policy.language_model.state_dict())
    trainer.update()
    assert all(torch.equal(x, before[n]) for n, x in trainer.policy.language_model.state_dict().items())
    assert set(trainer.epochs.optimizer.state) == set(trainer.policy.critic_parameters())


def test_gradient_checkpointing_changes_nothing(tiny_models, pairs):
    for critic in ("shared", "separate"):
        metrics = [
            full_trainer(tiny_models, pairs, critic, gradient_checkpointing=on, num_ppo_epochs=1).update().metrics
            for on in (False, True)
        ]
        for name in ("policy/grad_norm", "critic/grad_norm", "policy/loss", "critic/loss"):
            assert metrics[0][name] == pytest.approx(metrics[1][name], rel=1e-4), name


@pytest.mark.parametrize("critic", CRITICS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_round_trip_bit_for_bit(tiny_models, pairs, tmp_path, critic, architecture):
    trainer = full_trainer(tiny_models, pairs, critic, architecture)
    trainer.update()
    save_policy(trainer.policy, tmp_path / "policy")
    assert is_policy_folder(str(tmp_path / "policy"))
    assert not list((tmp_path / "policy").rglob("*.bin"))
    loaded = load_policy(tmp_path / "policy")
    again = full_trainer(tiny_models, pairs, critic, architecture).policy
    read_policy(again, tmp_path / "policy")
    for policy in (loaded, again):
        assert policy.base_name == trainer.policy.base_name == str(tiny_models[architecture])
        for (name, saved), (other, read) in zip(trainer.policy.trainable, policy.trainable, strict=True):
            assert name == other
            assert torch.equal(saved, read), name
        assert torch.equal(trainer.policy(*batch()).values, policy(*batch()).values)
        with policy.reference(), trainer.policy.reference():
            assert torch.equal(trainer.policy(*batch()).logprobs, policy(*batch()).logprobs)


@pytest.mark.parametrize(
    ("folder", "message"),
    [(".", "missing keys transformer.h.1"), ("critic", "missing keys h.1"), ("cut", "cannot load"), ("gone", "cannot")],
)
def test_loading_is_strict(tiny_models, tmp_path, folder, message):
    from safetensors.torch import load_file, save_file

    policy = Policy.in_full(plain_model(tiny_models), "separate")
    save_policy(policy, tmp_path)
    file = tmp_path / (folder if folder == "critic" else ".") / "model.safetensors"
    if folder == "gone":
        file.unlink()
    elif folder == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    else:
        tensors = load_file(file)
        tensors.pop(next(name for name in tensors if "h.1.mlp" in name))
        save_file(tensors, file, {"format": "pt"})
    with pytest.raises(UserError, match=message):
        read_policy(policy, tmp_path)


def test_a_folder_of_another_shape_is_refused(tiny_models, tmp_path):
    save_policy(Policy.in_full(plain_model(tiny_models), "shared"), tmp_path)
    other = plain_model(tiny_models)
    other.resize_token_embeddings(330)
    with pytest.raises(UserError, match="belongs to another model"):
        read_policy(Policy.in_full(other, "shared"), tmp_path)


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(tiny_models, pairs, tmp_path, critic):
    from rlhf.config import CheckpointConfig

    def config(name):
        return make_config(
            tiny_models["gpt2"], pairs, output_dir=str(tmp_path / name), critic=critic, num_updates=3,
            checkpoint=CheckpointConfig(save_steps=1), **FULL,
        )  # fmt: skip

    whole = run_ppo(config("whole"))
    with pytest.raises(RuntimeError, match="power failure"):
        run_ppo(config("cut"), callbacks=[Crash(at=3)])
    cut = run_ppo(config("cut"))
    files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(cut) for p in cut.rglob("*") if p.is_file())
    assert [f for f in files if (whole / f).read_bytes() != (cut / f).read_bytes()] == []


def test_the_policy_is_a_model_for_every_stage(tiny_models, pairs, tmp_path):
    from transformers import AutoModelForCausalLM

    config = make_config(tiny_models["gpt2"], pairs, output_dir=str(tmp_path / "run"), critic="shared", **FULL)
    policy = run_ppo(config)
    assert "All weights of" in (policy / "README.md").read_text()
    plain = AutoModelForCausalLM.from_pretrained(policy)
    evaluate = EvaluateConfig(
        output_dir=str(tmp_path / "evaluation"), model=ModelConfig(name_or_path=str(policy)),
        data=DataConfig(train=pairs), rewards=[COUNT_E], sampling=config.sampling,
    )  # fmt: skip
    assert run_evaluate(evaluate).means["kl"] > 0  # against what it was before, which policy.json names
    description = json.loads((policy / "policy.json").read_text())
    assert (description["lora"], description["base"]) == (None, str(tiny_models["gpt2"]))
    (policy / "policy.json").write_text(json.dumps(description | {"base": "/gone"}))  # generate needs no reference
    merged = tmp_path / "merged"
    model = ModelConfig(name_or_path=str(policy))
    run_generate(GenerateConfig(model=model, prompt=["Show"], sampling=config.sampling, merge_to=str(merged)))
    ours = AutoModelForCausalLM.from_pretrained(merged).state_dict()
    assert all(torch.equal(x, ours[name]) for name, x in plain.state_dict().items())
    loaded = load_policy_with(policy, tiny_models["gpt2"])
    save_merged(loaded, tmp_path / "again")
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "again").state_dict()
    assert all(torch.equal(x, ours[name]) for name, x in plain.state_dict().items())
    second = dataclasses.replace(config, model=ModelConfig(name_or_path=str(policy)))
    trainer = build_trainer(second, RewardSum.from_specs(second.rewards))  # another round starts where this one ended
    assert all(torch.equal(x, trainer.policy.frozen_reference.state_dict()[n]) for n, x in plain.state_dict().items())


def load_policy_with(folder, base):
    description = json.loads((folder / "policy.json").read_text())
    (folder / "policy.json").write_text(json.dumps(description | {"base": str(base)}))
    return load_policy(folder)


@pytest.mark.parametrize("critic", CRITICS)
def test_the_doctor_finds_nothing(tiny_models, pairs, critic):
    config = make_config(tiny_models["gpt2"], pairs, critic=critic, **FULL)
    found = list(examine(config))
    assert [check for check in found if check.verdict != "ok" and check.name != "responses end"] == []


def test_memory_by_hand(tiny_models, pairs):
    policies = {critic: full_trainer(tiny_models, pairs, critic) for critic in CRITICS}
    sizes = {c: footprint(t.config, t.policy, prompt_tokens=20) for c, t in policies.items()}
    model = plain_model(tiny_models)
    weights, trunk = 4 * model.num_parameters(), 4 * sum(p.numel() for p in model.base_model.parameters())
    head = 4 * (32 + 1)
    assert sizes["shared"].training == 4 * (weights + head)
    assert sizes["separate"].training == 4 * (weights + trunk + head)
    assert sizes["shared"].weights == weights  # the reference
    linear = 4 * (2 * 12 * 32**2 + 320 * 32)  # packed for decoding
    assert sizes["shared"].sampling > linear
    assert sizes["separate"].activations > 1.9 * sizes["detached"].activations


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora": None}, "critic is adapter, but lora is null"),
        ({"critic": "separate"}, "goes with lora: null"),
        ({"lora": None, "critic": "shared", "dtype": "bfloat16"}, "use float32"),
        ({"lora": None, "critic": "shared", "quantization": "4bit"}, "model.quantization 4bit"),
    ],
)
def test_what_does_not_go_together(tiny_models, pairs, options, message):
    about_model = {name: options[name] for name in ("dtype", "quantization") if name in options}
    others = {name: value for name, value in options.items() if name not in about_model}
    config = make_config(tiny_models["gpt2"], pairs)
    with pytest.raises(UserError, match=message):
        dataclasses.replace(config, model=dataclasses.replace(config.model, **about_model), **others)


def test_without_a_critic_there_is_nothing_to_choose(tiny_models, pairs):
    assert not make_config(tiny_models["gpt2"], pairs, advantage="rloo", **FULL).uses_critic


def test_float16_is_refused_and_bfloat16_is_warned_of(tiny_models):
    """An Adam step of 1e-5 on a weight of 1 is nothing in bfloat16, and in float16 its epsilon is 0."""
    with pytest.raises(UserError, match="is in float16"):
        Policy.in_full(plain_model(tiny_models).half(), "shared")
    with pytest.raises(UserError, match="is in float16"):
        Policy.with_lora(plain_model(tiny_models).half(), LoraConfig(r=2), "shared")
    with pytest.warns(UserWarning, match="are trained in bfloat16"):
        Policy.in_full(plain_model(tiny_models, dtype="bfloat16"), "shared")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        Policy.with_lora(plain_model(tiny_models, dtype="bfloat16"), LoraConfig(r=2), "shared")  # adapters in float32


def test_full_fine_tuning_keeps_float32_weights(tiny_models, pairs):
    model = ModelConfig(name_or_path=str(tiny_models["gpt2"]), dtype="bfloat16")
    data = DataConfig(train=pairs, eval=pairs)
    for config in (SFTConfig, RewardModelConfig):
        assert dtype_of_weights(config(model=model, data=data, lora=None)) == "float32"
        assert dtype_of_weights(config(model=model, data=data, lora=LoraConfig())) == "bfloat16"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_policy_folder_is_loaded_and_merged_in_the_dtype_that_is_asked_for(tiny_models, tmp_path, dtype):
    from safetensors.torch import load_file

    save_policy(Policy.with_lora(plain_model(tiny_models), LoraConfig(r=2), "adapter"), tmp_path / "policy")
    model = ModelConfig(name_or_path=str(tmp_path / "policy"), dtype=dtype)
    sampling = SamplingConfig(max_new_tokens=4)
    run_generate(GenerateConfig(model=model, prompt=["Show"], sampling=sampling, merge_to=str(tmp_path / "merged")))
    stored = load_file(tmp_path / "merged" / "model.safetensors")
    assert {x.dtype for x in stored.values()} == {getattr(torch, dtype)}
    policy = load_policy(tmp_path / "policy", dtype=dtype)
    assert policy.language_model.dtype == getattr(torch, dtype)
    assert {p.dtype for _, p in policy.trainable} == {torch.float32}
