"""Policies on disk: bit for bit back, or refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_policy import CRITICS, batch, make_policy

from rlhf.config import ModelConfig
from rlhf.errors import UserError
from rlhf.models.load import load_causal_lm
from rlhf.policy.files import load_policy, save_merged, save_policy


@pytest.mark.parametrize("critic", CRITICS)
def test_round_trip_bit_for_bit(tiny_models, tmp_path, critic):
    policy = make_policy(tiny_models["gpt2"], critic)
    save_policy(policy, tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy")
    for (name, saved), (loaded_name, read) in zip(policy.trainable, loaded.trainable, strict=True):
        assert name == loaded_name
        assert torch.equal(saved, read)
        assert read.requires_grad
    assert torch.equal(policy(*batch()).values, loaded(*batch()).values)
    assert not list((tmp_path / "policy").rglob("*.bin"))


def test_peft_reads_the_saved_policy(tiny_models, tmp_path):
    from peft import PeftModel

    policy = make_policy(tiny_models["gpt2"])
    save_policy(policy, tmp_path / "policy")
    model = PeftModel.from_pretrained(
        load_causal_lm(ModelConfig(name_or_path=str(tiny_models["gpt2"]))), tmp_path / "policy"
    )
    sequence_ids = batch()[0]
    ours = policy.wrapper.pretrained_model(input_ids=sequence_ids).logits
    torch.testing.assert_close(model(input_ids=sequence_ids).logits, ours)


def test_merged_model_is_a_plain_one(tiny_models, tmp_path):
    policy = make_policy(tiny_models["llama"])
    save_merged(policy, tmp_path / "merged")
    merged = load_causal_lm(ModelConfig(name_or_path=str(tmp_path / "merged")))
    sequence_ids = batch()[0]
    ours = policy.wrapper.pretrained_model(input_ids=sequence_ids).logits
    torch.testing.assert_close(merged(input_ids=sequence_ids).logits, ours, rtol=1e-4, atol=1e-5)
    assert not any("lora" in name for name in merged.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("summary.weight"), "'summary.weight' is missing"),
        (lambda t: t.update({"extra": torch.zeros(1)}), "'extra' has no place"),
        (lambda t: t.update({"summary.weight": torch.zeros(1, 7)}), r"shape \(1, 7\), expected \(1, 32\)"),
    ],
)
def test_loading_is_strict(tiny_models, tmp_path, change, message):
    policy = make_policy(tiny_models["gpt2"])
    save_policy(policy, tmp_path / "policy")
    file = tmp_path / "policy" / "value_head.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    with pytest.raises(UserError, match=message):
        load_policy(tmp_path / "policy")


def test_adapter_of_another_rank_is_refused(tiny_models, tmp_path):
    save_policy(make_policy(tiny_models["gpt2"]), tmp_path / "policy")
    description = json.loads((tmp_path / "policy" / "policy.json").read_text())
    description["lora"]["r"] = 2
    (tmp_path / "policy" / "policy.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match="check model and lora"):
        load_policy(tmp_path / "policy")


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_file_is_named(tiny_models, tmp_path, damage):
    save_policy(make_policy(tiny_models["gpt2"]), tmp_path / "policy")
    file = tmp_path / "policy" / "critic" / "adapter_model.safetensors"
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"critic/adapter_model.safetensors cannot be read"):
        load_policy(tmp_path / "policy")
