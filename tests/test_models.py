"""Models and tokenizers from folders and from scratch."""

import json
import shutil

import pytest
import torch
from tokenizers import processors

from rlhf.config import ModelConfig, ScratchModel
from rlhf.errors import UserError
from rlhf.models.load import build_from_scratch, load_causal_lm
from rlhf.models.pretrained import resolve_model_path
from rlhf.models.shape import context_length
from rlhf.models.tokenizer import load_tokenizer


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_from_scratch(architecture):
    scratch = ScratchModel(
        architecture=architecture, hidden_size=32, layers=2, heads=2, context_length=64, vocab_size=300
    )
    torch.manual_seed(0)
    model, tokenizer = build_from_scratch(scratch, ["const a = 1;\n  return <br/>"] * 3)
    assert model.config.model_type == architecture
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id != tokenizer.pad_token_id
    for text in ("const a = 1;\n  return <br/>", "naïve 日本 \t\x00 🎈", "  leading\n\n\nlines "):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    torch.manual_seed(0)
    again, _ = build_from_scratch(scratch, ["const a = 1;\n  return <br/>"] * 3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_shape_is_the_one_that_was_asked_for(architecture):
    scratch = ScratchModel(
        architecture=architecture, hidden_size=48, layers=3, heads=4, context_length=40, vocab_size=290
    )
    model, tokenizer = build_from_scratch(scratch, ["const a = 1;"])
    config = model.config
    shape = (config.hidden_size, config.num_hidden_layers, config.num_attention_heads, config.max_position_embeddings)
    assert shape == (48, 3, 4, 40)
    assert context_length(model) == 40
    assert model.get_input_embeddings().weight.shape == (len(tokenizer), 48)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    mlp = model.transformer.h[0].mlp.c_fc.weight if architecture == "gpt2" else model.model.layers[0].mlp.up_proj.weight
    assert sorted(mlp.shape) == [48, 4 * 48 if architecture == "gpt2" else 8 * 48 // 3]
    assert (config.pad_token_id, config.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    ids = torch.arange(20).unsqueeze(0)
    assert torch.equal(model.train()(ids).logits, model.eval()(ids).logits)  # no dropout


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_dropout_of_a_checkpoint_is_off(tiny_models, tmp_path, architecture):
    folder = shutil.copytree(tiny_models[architecture], tmp_path / "model")
    names = {"gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"), "llama": ("attention_dropout",)}[architecture]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | dict.fromkeys(names, 0.5)))
    model = load_causal_lm(ModelConfig(name_or_path=str(folder))).train()
    ids = torch.arange(20).unsqueeze(0)
    assert torch.equal(model(ids).logits, model(ids).logits)
    torch.testing.assert_close(model(ids).logits, model.eval()(ids).logits)


def test_tokens_do_not_cross_line_breaks_or_camel_humps():
    _, tokenizer = build_from_scratch(
        ScratchModel(hidden_size=32, heads=2, vocab_size=400), ["function SaveButton() {\n  return null;\n}"] * 20
    )
    pieces = [tokenizer.decode([i]) for i in tokenizer("function SaveButton() {\n  return null;\n}")["input_ids"]]
    assert pieces == ["function", " Save", "Button", "()", " {", "\n  ", "return", " null", ";", "\n", "}"]


def test_bos_is_kept_where_the_tokenizer_adds_it(tiny_models, tmp_path):
    tokenizer = load_tokenizer(str(tiny_models["llama"]))
    plain = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert plain == "a\n"
    tokenizer.add_special_tokens({"bos_token": "<|bos|>"})
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with_bos = load_tokenizer(str(tmp_path))
    assert with_bos.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False) == "<|bos|>a\n"


def test_a_model_folder_is_loaded_by_absolute_path(tiny_models, monkeypatch):
    monkeypatch.chdir(tiny_models["gpt2"].parent)
    model = load_causal_lm(ModelConfig(name_or_path=tiny_models["gpt2"].name))
    assert model.config._name_or_path == str(tiny_models["gpt2"])


def test_hub_names_pass_and_missing_paths_do_not():
    assert resolve_model_path("gpt2") == "gpt2"
    assert resolve_model_path("meta-llama/Llama-3.2-1B") == "meta-llama/Llama-3.2-1B"
    for path in ("./nowhere", "/nowhere/model", "runs/nowhere/model"):
        with pytest.raises(UserError, match="does not exist; train that stage first"):
            resolve_model_path(path)


def test_weights_that_are_cut_off_are_one_line(tiny_models, tmp_path):
    folder = shutil.copytree(tiny_models["gpt2"], tmp_path / "model")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"^cannot load the model folder .*model' \(.*\)$"):
        load_causal_lm(ModelConfig(name_or_path=str(folder)))


def test_unreachable_hub_model_is_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="neither a folder nor a reachable hub model: 'nobody/nothing'") as caught:
        load_causal_lm(ModelConfig(name_or_path="nobody/nothing"))
    assert "\n" not in str(caught.value)


def test_bfloat16_base_keeps_adapters_and_logprobs_in_float32(tiny_models):
    from rlhf.config import LoraConfig
    from rlhf.policy.policy import Policy

    model = load_causal_lm(ModelConfig(name_or_path=str(tiny_models["llama"]), dtype="bfloat16"))
    policy = Policy.with_lora(model, LoraConfig(r=2), "adapter")
    assert {p.dtype for _, p in policy.trainable} == {torch.float32}
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    result = policy(torch.arange(3, 11).unsqueeze(0), torch.tensor([3]), torch.ones(1, 5, dtype=torch.bool))
    assert result.logprobs.dtype == result.values.dtype == torch.float32
    (result.logprobs.sum() + result.values.sum()).backward()
    assert all(p.grad.isfinite().all() for _, p in policy.trainable)
