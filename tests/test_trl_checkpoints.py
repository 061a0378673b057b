"""Value-head checkpoints in both directions, against the installed TRL; a head is never silently a random one."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

from trl.experimental.ppo import AutoModelForCausalLMWithValueHead as Theirs

from rlhf.classic.checkpoints import HEAD, save_checkpoint
from rlhf.classic.model import AutoModelForCausalLMWithValueHead as Ours
from rlhf.classic.model import load_checkpoint
from rlhf.classic.reference import create_reference_model
from rlhf.config import LoraConfig
from rlhf.errors import UserError
from rlhf.models.load import lora_adapters
from rlhf.policy.policy import Policy

TOKEN_IDS = torch.tensor([[5, 17, 200, 31, 8]])


def outputs(model):
    """Logits and values, in eval mode: TRL's head has dropout."""
    with torch.no_grad():
        logits, _, values = model.eval()(TOKEN_IDS)
    return logits, values


def assert_same(a, b):
    for ours, theirs in zip(outputs(a), outputs(b), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def with_adapters(plain: Path):
    """TRL's model with adapters that do something."""
    torch.manual_seed(3)
    base = Ours.from_pretrained(plain).pretrained_model
    model = Theirs.from_pretrained(base, peft_config=lora_adapters(LoraConfig(r=4), base))
    for name, parameter in model.pretrained_model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3)
    return model


@pytest.fixture(params=["gpt2", "llama"])
def plain(request, tiny_models) -> Path:
    return tiny_models[request.param]


@pytest.fixture(params=["full", "adapters"])
def trained(request, plain):
    """A value-head model of TRL's, far from its initialization."""
    model = Theirs.from_pretrained(str(plain)) if request.param == "full" else with_adapters(plain)
    model.v_head.summary.weight.data.normal_()
    model.v_head.summary.bias.data.fill_(0.7)
    return model


def test_what_trl_wrote_is_read(trained, tmp_path):
    trained.save_pretrained(str(tmp_path))
    assert_same(load_checkpoint(tmp_path, allow_pickle=True), trained)


def test_what_we_write_is_read_by_trl(trained, tmp_path):
    folder = tmp_path / "new" / "folder"
    save_checkpoint(trained, folder)
    assert_same(Theirs.from_pretrained(str(folder)), trained)
    assert_same(Ours.from_pretrained(folder), trained)
    assert not list(folder.glob("*.bin"))


def test_shards(plain, tmp_path):
    model = Ours.from_pretrained(plain)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert_same(load_checkpoint(tmp_path), model)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shard = index["weight_map"][HEAD[0]]
    (tmp_path / shard).unlink()
    with pytest.raises(UserError, match=f"index.json names {shard}, which is missing"):
        load_checkpoint(tmp_path)


def test_sharded_pickles_of_old(plain, tmp_path):
    model = Ours.from_pretrained(plain)
    weights = model.pretrained_model.state_dict()
    head = {f"v_head.{name}": tensor for name, tensor in model.v_head.state_dict().items()}
    model.config.save_pretrained(tmp_path)
    torch.save(weights, tmp_path / "pytorch_model-00001-of-00002.bin")
    torch.save(head, tmp_path / "pytorch_model-00002-of-00002.bin")
    files = dict.fromkeys(weights, "pytorch_model-00001-of-00002.bin")
    files |= dict.fromkeys(head, "pytorch_model-00002-of-00002.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    assert_same(load_checkpoint(tmp_path, allow_pickle=True), model)


def test_pickles_are_read_only_when_asked_for(plain, tmp_path):
    model = Ours.from_pretrained(plain)
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    for read in (Ours.from_pretrained, load_checkpoint):
        with pytest.raises(UserError, match=r"pytorch_model.bin is a pickle.*use_safetensors=False"):
            read(tmp_path)
    assert_same(Ours.from_pretrained(tmp_path, use_safetensors=False), model)


def test_nor_is_the_pickle_of_a_base_or_of_adapters(plain, tmp_path):
    model = with_adapters(plain)
    save_checkpoint(model, tmp_path / "adapters")
    description = json.loads((tmp_path / "adapters/adapter_config.json").read_text())
    base = tmp_path / "base"
    plain_model = Ours.from_pretrained(plain).pretrained_model
    plain_model.config.save_pretrained(base)
    torch.save(plain_model.state_dict(), base / "pytorch_model.bin")
    description["base_model_name_or_path"] = str(base)
    (tmp_path / "adapters/adapter_config.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match=r"base' is neither the folder of a model nor"):
        load_checkpoint(tmp_path / "adapters")
    assert_same(load_checkpoint(tmp_path / "adapters", allow_pickle=True), model)
    torch.save(load_file(tmp_path / "adapters/adapter_model.safetensors"), tmp_path / "adapters/adapter_model.bin")
    (tmp_path / "adapters/adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"adapter_model.bin is a pickle"):
        load_checkpoint(tmp_path / "adapters")
    assert_same(load_checkpoint(tmp_path / "adapters", allow_pickle=True), model)


def test_code_in_a_pickle_is_not_run(plain, tmp_path):
    class Attack:
        def __reduce__(self):
            return Path.touch, (tmp_path / "was_run",)

    Ours.from_pretrained(plain).config.save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({HEAD[0]: Attack()}))
    with pytest.raises(UserError, match="cannot be read"):
        load_checkpoint(tmp_path, allow_pickle=True)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("length", [0, 3, 5000])
def test_a_pickle_that_is_cut_off_is_one_line(plain, tmp_path, length):
    """Torch raises something else for each of these."""
    Ours.from_pretrained(plain).config.save_pretrained(tmp_path)
    file = tmp_path / "pytorch_model.bin"
    torch.save(Ours.from_pretrained(plain).state_dict(), file)
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(UserError, match=r"pytorch_model\.bin cannot be read \(.+\); it is damaged"):
        load_checkpoint(tmp_path, allow_pickle=True)


def test_a_checkpoint_without_a_head_is_an_error_a_model_without_one_is_not(plain):
    with pytest.raises(UserError, match=r"holds no v_head.summary.weight"):
        load_checkpoint(plain)
    assert Ours.from_pretrained(plain).v_head.summary.weight.requires_grad


@pytest.mark.parametrize("wrong", ["module.v_head.summary.weight", "v_head.weight", "value_head.weight"])
def test_a_misnamed_head_is_an_error(plain, tmp_path, wrong):
    """TRL loads each of these with a random weight, silently."""
    Ours.from_pretrained(plain).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights[wrong] = weights.pop(HEAD[0])
    if wrong.startswith("value_head"):
        del weights[HEAD[1]]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=wrong):
        Ours.from_pretrained(tmp_path)


def test_missing_weights_are_an_error(plain, tmp_path):
    Ours.from_pretrained(plain).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(name for name in weights if "norm" in name or "ln_f" in name)
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"1 tensors are missing.*{name}"):
        Ours.from_pretrained(tmp_path)


def test_a_head_of_another_width_is_an_error(plain, tmp_path):
    Ours.from_pretrained(plain).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors") | {HEAD[0]: torch.zeros(1, 7)}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"shape \(1, 7\), the model needs \(1, 32\)"):
        load_checkpoint(tmp_path)


def test_a_lost_adapter_tensor_is_an_error(plain, tmp_path):
    save_checkpoint(with_adapters(plain), tmp_path)
    adapters = load_file(tmp_path / "adapter_model.safetensors")
    name = next(iter(adapters))
    del adapters[name]
    save_file(adapters, tmp_path / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"1 tensors do not match adapter_config\.json"):
        load_checkpoint(tmp_path)


def test_loaded_models_can_be_trained_and_have_no_dropout(trained, tmp_path):
    trained.pretrained_model.config.summary_dropout_prob = 0.1  # some configs on the hub say so
    save_checkpoint(trained, tmp_path)
    model = load_checkpoint(tmp_path).train()
    torch.testing.assert_close(model(TOKEN_IDS)[2], model(TOKEN_IDS)[2], rtol=0, atol=0)
    policy = Policy(model, "shared", None if model.is_peft_model else create_reference_model(model).pretrained_model)
    expected = ["lora_"] if model.is_peft_model else ["embed_tokens", "wte"]
    assert any(part in name for name, _ in policy.trainable for part in expected)
    assert "wrapper.v_head.summary.weight" in dict(policy.trainable)
    frozen = load_checkpoint(tmp_path, is_trainable=False)
    assert any(p.requires_grad for p in frozen.pretrained_model.parameters()) is not model.is_peft_model


def test_a_native_policy_goes_to_trl(plain, tmp_path):
    base = Ours.from_pretrained(plain).pretrained_model
    policy = Policy.with_lora(base, LoraConfig(r=4), "shared")
    policy.start_values_at(0.25)
    policy.wrapper.v_head.summary.weight.data.normal_()
    save_checkpoint(policy.wrapper, tmp_path / "shared")
    logits, values = outputs(Theirs.from_pretrained(str(tmp_path / "shared")))
    with torch.no_grad():
        torch.testing.assert_close(logits, base(TOKEN_IDS).logits, rtol=0, atol=0)
        features = base.base_model(TOKEN_IDS).last_hidden_state
        torch.testing.assert_close(values, policy.wrapper.v_head(features).squeeze(-1), rtol=0, atol=0)
    two_adapters = Policy.with_lora(Ours.from_pretrained(plain).pretrained_model, LoraConfig(r=4), "adapter")
    with pytest.raises(UserError, match="adapters of its own"):
        save_checkpoint(two_adapters.wrapper, tmp_path / "adapter")


def test_an_empty_folder_is_no_model(tmp_path):
    with pytest.raises(UserError, match="is neither the folder of a model nor a reachable hub model"):
        Ours.from_pretrained(tmp_path)
