"""A base in four bits under adapters in float32: needs bitsandbytes, which also runs on a CPU."""

import dataclasses
import importlib.util
import json
import sys

import pytest
import torch
from small_llama import SHORT_RUN, save_small_llama
from tiny_data import TEXTS
from tiny_runs import make_config, parameters

from rlhf.cli import main
from rlhf.config import DataConfig, LoraConfig, ModelConfig, RewardModelConfig, ScratchModel, SFTConfig
from rlhf.doctor.memory import check_weights_fit
from rlhf.errors import UserError
from rlhf.models.load import build_from_scratch, load_causal_lm
from rlhf.models.quantization import is_quantized
from rlhf.policy.files import load_policy, read_policy, save_merged, save_policy
from rlhf.policy.merged import merged
from rlhf.policy.policy import Policy
from rlhf.rewards import RewardSum
from rlhf.stages.ppo import build_trainer

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="the extra `quantized` is not installed"
)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def folder(request, tmp_path_factory):
    """A model whose layers are wide enough for bitsandbytes' blocks of 64 weights."""
    torch.manual_seed(0)
    scratch = ScratchModel(
        architecture=request.param, hidden_size=64, layers=2, heads=2, context_length=320, vocab_size=320
    )
    model, tokenizer = build_from_scratch(scratch, TEXTS)
    for parameter in model.parameters():
        parameter.data.mul_(3.0)
    place = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def four_bit(folder, dtype="float32") -> ModelConfig:
    return ModelConfig(name_or_path=str(folder), quantization="4bit", dtype=dtype)


def make_policy(folder, critic="adapter", **options) -> Policy:
    torch.manual_seed(1)
    policy = Policy.with_lora(load_causal_lm(four_bit(folder)), LoraConfig(r=4, alpha=8), critic, **options)
    for name, parameter in policy.trainable:
        if "lora_" in name:
            parameter.data.normal_(std=0.1)
    return policy


def rows(batch=3, prompt=5, response=9):
    ids = torch.randint(5, 250, (batch, prompt + response), generator=torch.Generator().manual_seed(2))
    return ids, torch.full((batch,), prompt), torch.ones(batch, response, dtype=torch.bool)


def dequantized(model) -> dict[str, torch.Tensor]:
    """What the packed weights stand for."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    return {
        name: dequantize_4bit(module.weight.data, module.weight.quant_state)
        for name, module in model.named_modules()
        if isinstance(module, Linear4bit)
    }


@needs_bitsandbytes
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_linear_layers_of_the_blocks_are_packed_and_nothing_else(folder, dtype):
    model = load_causal_lm(four_bit(folder, dtype))
    plain = load_causal_lm(ModelConfig(name_or_path=str(folder), dtype=dtype))
    packed = {name: p for name, p in model.named_parameters() if p.dtype == torch.uint8}
    originals = dict(plain.named_parameters())
    matrices = [n for n, p in originals.items() if p.ndim == 2 and ("h." in n or "layers." in n)]
    assert sorted(packed) == sorted(matrices)
    assert all(p.numel() == originals[name].numel() / 2 for name, p in packed.items())  # two weights to a byte
    rest = {name: p for name, p in model.named_parameters() if name not in packed}
    assert all(torch.equal(p, originals[name]) for name, p in rest.items())


@needs_bitsandbytes
def test_forward_and_gradient_are_those_of_the_weights_that_the_packed_ones_stand_for(folder):
    """Against a plain model that holds the dequantized weights: same logprobs, same gradients of the adapters."""
    policy = make_policy(folder)
    plain_model = load_causal_lm(ModelConfig(name_or_path=str(folder)))
    for name, weight in dequantized(policy.language_model).items():
        target = plain_model.get_submodule(name.removesuffix(".base_layer")).weight
        target.data.copy_(weight.T if "h." in name else weight)  # GPT-2 keeps them transposed
    plain = Policy.with_lora(plain_model, LoraConfig(r=4, alpha=8), "adapter")
    for (name, ours), (other_name, theirs) in zip(policy.trainable, plain.trainable, strict=True):
        assert (name, ours.dtype, ours.shape) == (other_name, torch.float32, theirs.shape)
        theirs.data.copy_(ours)
    results = [model(*rows()) for model in (policy, plain)]
    for result in results:
        (result.logprobs.sum() + result.values.square().sum()).backward()
    torch.testing.assert_close(results[0].logprobs, results[1].logprobs, atol=1e-4, rtol=1e-4)
    for (name, ours), (_, theirs) in zip(policy.trainable, plain.trainable, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-3, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


@needs_bitsandbytes
def test_decoding_does_not_touch_the_base_and_training_goes_on_after_it(folder):
    """Merging adapters into four bits would quantize again; and decoding must not repack what is differentiated."""
    policy = make_policy(folder)
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    ids, lengths, mask = rows()
    expected = policy(ids, lengths, mask).logprobs.detach()
    with merged(policy), torch.inference_mode():
        assert all(torch.equal(p, before[name]) for name, p in policy.named_parameters())
        logits = policy.language_model(ids).logits
    decoded = logits[:, 4:-1].log_softmax(-1).gather(-1, ids[:, 5:, None]).squeeze(-1)
    torch.testing.assert_close(decoded.clone(), expected, atol=1e-5, rtol=1e-5)
    result = policy(ids, lengths, mask)
    assert torch.equal(result.logprobs, expected)
    result.logprobs.sum().backward()
    assert all(torch.equal(p, before[name]) for name, p in policy.named_parameters())


@needs_bitsandbytes
@pytest.mark.parametrize("critic", ["shared", "detached", "adapter", "branch"])
def test_updates_with_gradient_checkpointing(folder, pairs, critic):
    config = make_config(folder, pairs, critic=critic)
    model = dataclasses.replace(four_bit(folder, "bfloat16"), gradient_checkpointing=True)
    trainer = build_trainer(dataclasses.replace(config, model=model), RewardSum.from_specs(config.rewards))
    base = {n: p.detach().clone() for n, p in trainer.policy.named_parameters() if not p.requires_grad}
    assert is_quantized(trainer.policy.language_model)
    assert all(p.dtype == torch.float32 for _, p in trainer.policy.trainable)
    before = parameters(trainer)
    for _ in range(2):
        metrics = trainer.update().metrics
        assert metrics["policy/ratio_first_minibatch"] == pytest.approx(1.0, abs=1e-6)
        assert metrics["policy/skipped_steps"] == 0
    assert not torch.equal(parameters(trainer), before)
    after = dict(trainer.policy.named_parameters())
    assert all(torch.equal(after[name], weight) for name, weight in base.items())


@needs_bitsandbytes
def test_only_adapters_and_value_head_are_saved(folder, tmp_path):
    policy = make_policy(folder)
    save_policy(policy, tmp_path)
    assert not list(tmp_path.glob("model*")) + list(tmp_path.glob("pytorch_model*"))
    again = Policy.with_lora(load_causal_lm(four_bit(folder)), LoraConfig(r=4, alpha=8), "adapter")
    read_policy(again, tmp_path)
    assert torch.equal(again(*rows()).logprobs, policy(*rows()).logprobs)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "LORA"


@needs_bitsandbytes
def test_saved_policy_is_loaded_on_the_base_that_it_was_trained_on(folder, tmp_path):
    """With `evaluate` and `generate`; the plain base would say something else."""
    policy = make_policy(folder)
    save_policy(policy, tmp_path)
    again = load_policy(tmp_path)
    assert torch.equal(again(*rows()).logprobs, policy(*rows()).logprobs)
    with pytest.raises(UserError, match=r"is quantized to 4bit, into which adapters cannot be merged"):
        save_merged(again, tmp_path / "merged")


@pytest.mark.parametrize("build", [SFTConfig, RewardModelConfig])
def test_stages_that_merge_refuse_it(build):
    model, data = ModelConfig(name_or_path="x", quantization="4bit"), DataConfig(train="x", eval="x")
    with pytest.raises(UserError, match=r"model.quantization is 4bit, into which adapters cannot be merged at the end"):
        build(output_dir="x", model=model, data=data)


def test_size_of_the_unpacked_weights_says_nothing(folder, monkeypatch):
    monkeypatch.setattr("rlhf.doctor.memory.room", lambda device: 1000)
    config = make_config(folder, "unused")
    assert check_weights_fit(dataclasses.replace(config, model=four_bit(folder))) is None
    assert check_weights_fit(config).verdict == "failure"


@needs_bitsandbytes
def test_nothing_is_said_while_the_model_is_wrapped(folder, caplog):
    make_policy(folder)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


@needs_bitsandbytes
def test_shipped_config_runs(tmp_path):
    llama = save_small_llama(tmp_path / "llama")
    command = f"ppo --config configs/ppo/react_llama_4bit.yaml --model.name_or_path {llama} --output_dir {tmp_path}/run"
    main([*command.split(), *SHORT_RUN.split()])
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["policy/skipped_steps"] for row in rows] == [0, 0]
    assert rows[0]["objective/kl"] == 0.0 != rows[1]["objective/kl"]  # without adapters, policy and reference are one


def test_missing_package_is_one_line(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match=r"bitsandbytes, which is not installed: pip install 'rlhf-ppo\[quantized\]'"):
        load_causal_lm(four_bit(folder))


def test_divided_base_is_refused(folder, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match=r"accelerate was told to use fsdp; use configs/accelerate/multi_gpu.yaml"):
        load_causal_lm(four_bit(folder))


def test_from_scratch_cannot_be_quantized():
    with pytest.raises(UserError, match=r"model.quantization is 4bit, but a model from scratch"):
        ModelConfig(scratch=ScratchModel(), quantization="4bit")
