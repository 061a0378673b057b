"""What is not a Llama: noise under other names, heads that scale, shortcuts that do not hold, configs that say less."""

import json

import pytest
import torch
from families import FAMILIES, build
from tiny_policy import batch
from tiny_runs import command_line, make_config
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    MixtralForCausalLM,
    RobertaConfig,
    WhisperConfig,
)

from rlhf import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer
from rlhf.cli import main
from rlhf.config import LoraConfig, ModelConfig
from rlhf.errors import UserError
from rlhf.models.dropout import disable_dropout, ordinary_tokens
from rlhf.models.head import Head, head_of, require_head
from rlhf.models.load import load_causal_lm, lora_adapters
from rlhf.models.rounding import relative_error
from rlhf.models.shape import UNLIMITED, context_length
from rlhf.models.tokenizer import load_tokenizer
from rlhf.policy.files import save_merged
from rlhf.policy.merged import merged, merges
from rlhf.policy.policy import Policy
from rlhf.rewards.learned import score_ids
from rlhf.sampling.trial import way_of


def policy_on(model, targets="all-linear", stir=0.05, **options) -> Policy:
    torch.manual_seed(0)
    policy = Policy.with_lora(model, LoraConfig(r=4, alpha=8, target_modules=targets), "detached", **options)
    for _, parameter in policy.trainable:
        parameter.data.add_(torch.randn_like(parameter) * stir)
    return policy


# --- noise


@pytest.mark.parametrize(
    "name", ["OPT", "BLOOM", "Falcon", "StarCoder2", "XGLM", "BioGPT", "GPT-BigCode, SantaCoder", "GPT-NeoX, Pythia"]
)
def test_dropout_is_found_under_any_name(name):
    model = build(FAMILIES[name]).train()
    ids = ordinary_tokens(model)
    torch.manual_seed(0)
    assert not torch.equal(model(ids).logits, model(ids).logits)  # there is some
    disable_dropout(model)
    assert torch.equal(model(ids).logits, model(ids).logits)
    assert not any("drop" in key and value for key, value in model.config.to_dict().items() if isinstance(value, float))


def test_a_router_with_jitter_is_quiet_and_routes_as_in_eval_mode():
    model = build(FAMILIES["Phi-3.5-MoE"]).eval()
    ids = ordinary_tokens(model)
    expected = model(ids).logits
    disable_dropout(model)
    model.train()
    assert torch.equal(model(ids).logits, expected)


class Noisy(torch.nn.Module):
    """A layer whose noise has no setting."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *given, **named):
        output = self.inner(*given, **named)
        return output * (1 + 0.1 * torch.rand(())) if self.training else output


def test_noise_that_has_no_name_is_refused(tiny_models):
    model = load_causal_lm(ModelConfig(name_or_path=str(tiny_models["llama"])))
    model.model.layers[0].mlp = Noisy(model.model.layers[0].mlp)
    with pytest.raises(UserError, match="gives other logits for the same tokens when asked twice in train mode"):
        policy_on(model, ["q_proj"])


def test_a_layer_that_differs_in_eval_mode_is_refused(tiny_models):
    model = load_causal_lm(ModelConfig(name_or_path=str(tiny_models["llama"])))
    layer = model.model.layers[0].mlp
    layer.register_forward_hook(lambda module, given, output: output if module.training else 1.001 * output)
    with pytest.raises(UserError, match="depends on the tokens that come after, or on eval mode"):
        policy_on(model, ["q_proj"])


# --- heads


@pytest.mark.parametrize(
    ("name", "scale", "soft_cap"),
    [("Gemma 2", 1.0, 0.5), ("Cohere", 0.25, None), ("Granite", 0.125, None), ("Falcon-H1", 0.5, None)],
)
def test_scale_and_soft_cap_come_from_the_config(name, scale, soft_cap):
    model = build(FAMILIES[name]).eval()
    head = head_of(model)
    assert (head.scale, head.soft_cap) == (scale, soft_cap)
    ids = ordinary_tokens(model)
    features, logits = model.base_model(ids).last_hidden_state, model(ids).logits
    torch.testing.assert_close(head(features), logits)
    assert relative_error(Head(head.linear)(features), logits) > 0.01


def test_a_scale_that_is_a_word_is_none():
    model = build(FAMILIES["MPT"])
    model.config.logit_scale = "inv_sqrt_d_model"  # of MPT's own code; that of transformers has no scale
    assert head_of(model).is_linear
    require_head(model)


def test_a_scale_that_the_config_does_not_name_is_refused(tiny_models):
    model = load_causal_lm(ModelConfig(name_or_path=str(tiny_models["llama"])))
    require_head(model)
    model.register_forward_hook(lambda module, given, output: setattr(output, "logits", 1.001 * output.logits))
    with pytest.raises(UserError, match="more than its config says"):
        require_head(model)


# --- shortcuts


def test_an_adapter_on_a_tied_head_is_not_merged_but_exported_rightly(tiny_models, tmp_path):
    policy = policy_on(load_causal_lm(ModelConfig(name_or_path=str(tiny_models["llama"]))), ["q_proj", "lm_head"])
    embedding = policy.language_model.get_input_embeddings().weight.clone()
    assert not merges(policy)
    assert way_of(policy) == "fast"
    assert torch.equal(policy.language_model.get_input_embeddings().weight, embedding)
    save_merged(policy, tmp_path)
    ids = batch()[0]
    exported = load_causal_lm(ModelConfig(name_or_path=str(tmp_path)))
    expected = policy.language_model(ids).logits
    torch.testing.assert_close(exported(ids).logits, expected, rtol=1e-4, atol=2e-5)


def test_merging_into_experts_leaves_no_trace():
    policy = policy_on(build(FAMILIES["Mixtral"]))
    assert any("experts" in name for name, _ in policy.trainable)
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    apart = policy(*batch()).logprobs
    with merged(policy):
        torch.testing.assert_close(policy(*batch()).logprobs, apart, rtol=1e-4, atol=1e-5)
        assert not all(torch.equal(before[name], tensor) for name, tensor in policy.state_dict().items())
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.state_dict().items())


def test_a_cache_that_lies_is_found_out(tiny_models):
    """One that forgets the first token: of the next family, say."""
    model = load_causal_lm(ModelConfig(name_or_path=str(tiny_models["llama"])))
    policy = policy_on(model)
    forward = model.base_model.layers[1].self_attn.forward

    def forgetful(*given, past_key_values=None, **named):
        if past_key_values is not None and past_key_values.get_seq_length(1) > 0:
            layer = past_key_values.layers[1]
            layer.keys[:, :, 0] = 0
        return forward(*given, past_key_values=past_key_values, **named)

    model.base_model.layers[1].self_attn.forward = forgetful
    with pytest.warns(UserWarning, match="for every token the whole sequence is read again"):
        assert way_of(policy) == "uncached"


def test_the_trial_leaves_no_trace(tiny_models):
    policy = policy_on(load_causal_lm(ModelConfig(name_or_path=str(tiny_models["gpt2"]))))
    before, state = {n: t.clone() for n, t in policy.state_dict().items()}, torch.get_rng_state()
    assert way_of(policy) == "fast"
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert policy.training


@pytest.mark.parametrize("fast_paths", [True, False])
def test_autocast_around_the_loop(tiny_models, fast_paths):
    """Its precision is the caller's; what is computed is the same but for that."""
    policy = policy_on(load_causal_lm(ModelConfig(name_or_path=str(tiny_models["llama"]))), fast_paths=fast_paths)
    exact = policy(*batch()).logprobs
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = policy(*batch())
        assert way_of(policy) == "plain"
    found.logprobs.sum().backward()
    assert all(p.grad is not None for p in policy.policy_parameters())
    error = (found.logprobs - exact).detach().norm() / exact.detach().norm()
    assert 1e-5 < error < 0.02
    assert way_of(policy) == ("fast" if fast_paths else "plain")


def test_autocast_around_the_classic_loop(tiny_models):
    wrapper = AutoModelForCausalLMWithValueHead.from_pretrained(tiny_models["gpt2"])
    tokenizer = load_tokenizer(str(tiny_models["gpt2"]))
    trainer = PPOTrainer(PPOConfig(batch_size=2, mini_batch_size=2, ppo_epochs=1), wrapper, tokenizer=tokenizer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        queries = [torch.tensor([5, 6, 7]), torch.tensor([8])]
        responses = trainer.generate(queries, return_prompt=False, max_new_tokens=4, do_sample=True, top_k=0)
        stats = trainer.step(queries, responses, [1.0, 0.0])
    assert stats["ppo/policy/approxkl"] < 1e-10


# --- adapters where they belong


def test_a_bare_target_is_a_name(tiny_models):
    model = load_causal_lm(ModelConfig(name_or_path=str(tiny_models["llama"])))
    assert lora_adapters(LoraConfig(target_modules="q_proj"), model).target_modules == {"q_proj"}
    for wrong in (".*q_proj", ["q_proj", "quproj"], "q_proj,v_proj"):
        with pytest.raises(UserError, match="which is the name of no layer of LlamaForCausalLM; it has down_proj, "):
            lora_adapters(LoraConfig(target_modules=wrong), model)


def test_a_layer_that_adapters_do_not_fit_on_is_one_line(tiny_models):
    model = load_causal_lm(ModelConfig(name_or_path=str(tiny_models["llama"])))
    with pytest.raises(UserError, match=r"cannot put adapters on LlamaForCausalLM \(Target module LlamaRMSNorm"):
        policy_on(model, ["norm"])


def test_adapters_without_effect_are_refused():
    with pytest.raises(UserError, match="the adapters of MambaForCausalLM have no effect"):
        policy_on(build(FAMILIES["Mamba"]), ["dt_proj"])


@pytest.mark.parametrize("command", ["ppo", "doctor"])
def test_an_unknown_target_is_one_line(tiny_models, pairs, tmp_path, capsys, command):
    config = make_config(tiny_models["llama"], pairs, lora=LoraConfig(target_modules=["query"]))
    _, *arguments = command_line(config, tmp_path)
    with pytest.raises(SystemExit):
        main([command, *arguments])
    said = "".join(capsys.readouterr())  # the doctor's in a table, broken into lines
    for word in ("lora.target_modules", "'query'", "name of no"):
        assert word in said
    assert "Traceback" not in said


# --- what configs say


@pytest.mark.parametrize(
    ("name", "context"),
    [
        ("GPT-2", 128),
        ("BLOOM", UNLIMITED),
        ("MPT", 128),
        ("Mamba", UNLIMITED),
        ("RWKV", 128),
        ("Gemma 3, multimodal", 128),
    ],
)
def test_context_length(name, context):
    assert context_length(build(FAMILIES[name])) == context


def test_context_length_of_a_decoder_that_has_lost_its_encoder():
    size = {"vocab_size": 50, "d_model": 16, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16}
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 1}
    model = AutoModelForCausalLM.from_config(WhisperConfig(**size, **ends, max_target_positions=12))
    assert context_length(model) == 12


def test_roberta_numbers_positions_from_behind_the_pad_token():
    config = RobertaConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=12, num_labels=1, pad_token_id=1,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config).eval()
    assert context_length(model) == 10
    assert len(score_ids(model, [[5] * 10], 1)) == 1
    with pytest.raises(ValueError, match="have 11 tokens, the reward model takes 10"):
        score_ids(model, [[5] * 11], 1)


@pytest.mark.parametrize("stage", ["ppo", "generate", "sft"])
def test_tokens_that_the_model_does_not_know_are_one_line(tiny_models, tmp_path, capsys, stage):
    tokenizer = load_tokenizer(str(tiny_models["llama"]))
    tokenizer.add_tokens(["<tool>"])
    load_causal_lm(ModelConfig(name_or_path=str(tiny_models["llama"]))).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    row = {"prompt": "Show <tool>", "completion": "it"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"prompt": "Show"}) + "\n")
    data = ["--data.train", str(tmp_path / "rows.jsonl")]
    options = {
        "ppo": [
            *data,
            "--rewards",
            "[{path: length, args: {maximum: 9}}]",
            "--batch_size",
            "2",
            "--mini_batch_size",
            "2",
        ],
        "generate": ["--prompt", "[Show <tool>]"],
        "sft": [*data, "--batch_size", "2"],
    }[stage]
    options += [] if stage == "sft" else ["--sampling.max_new_tokens", "4"]
    where = [] if stage == "generate" else ["--output_dir", str(tmp_path / "run")]
    with pytest.raises(SystemExit):
        main([stage, "--model.name_or_path", str(tmp_path / "model"), *where, *options])
    said = capsys.readouterr().err
    assert f"rlhf {stage}: error: token " in said
    assert "320" in said


def test_mixtral_with_adapters_on_attention_alone():
    model = build(FAMILIES["Mixtral"])
    assert isinstance(model, MixtralForCausalLM)
    policy = policy_on(model, ["q_proj", "k_proj", "v_proj", "o_proj"])
    assert way_of(policy) == "fast"
    assert not any("experts" in name for name, _ in policy.trainable)


class Skipping(torch.nn.Module):
    """A layer that is left out now and then, by a setting of an unknown name."""

    def __init__(self, inner, chance):
        super().__init__()
        self.inner, self.chance = inner, chance

    def forward(self, *given, **named):
        output = self.inner(*given, **named)
        return 0.0 * output if self.training and torch.rand(()) < self.chance else output


def test_noise_that_is_seldom_there_is_refused(tiny_models):
    torch.manual_seed(2)
    assert (torch.rand(8) < 0.3).tolist() == [False] * 7 + [True]  # two or three passes do not show it
    model = load_causal_lm(ModelConfig(name_or_path=str(tiny_models["llama"])))
    model.model.layers[0].mlp = Skipping(model.model.layers[0].mlp, 0.3)
    torch.manual_seed(2)
    with pytest.raises(UserError, match="gives other logits for the same tokens when asked twice in train mode"):
        require_head(model)
    model.model.layers[0].mlp.chance = 0.0  # it draws numbers that have no effect, as OPT does
    require_head(model)


def test_dropout_in_a_dict_of_a_config(tiny_models):
    model = load_causal_lm(ModelConfig(name_or_path=str(tiny_models["llama"])))
    model.config.attn_config = {"attn_pdrop": 0.1, "nested": {"resid_pdrop": 0.2, "clip": 6.0}}
    model.config.label2id = {"drop": 1}
    disable_dropout(model)
    assert model.config.attn_config == {"attn_pdrop": 0.0, "nested": {"resid_pdrop": 0.0, "clip": 6.0}}
    assert model.config.label2id == {"drop": 1}


def test_attention_that_takes_another_kernel_with_a_gradient(tiny_models):
    """Rounding only: bits are compared where both ask for a gradient."""
    model = load_causal_lm(ModelConfig(name_or_path=str(tiny_models["llama"])))
    layer = model.model.layers[0].mlp
    layer.register_forward_hook(lambda module, given, output: output * (1 + 1e-6 * torch.is_grad_enabled()))
    ids = ordinary_tokens(model)
    with torch.no_grad():
        apart = model(ids).logits
    assert not torch.equal(model(ids).logits, apart)
    require_head(model)


def test_a_model_that_fails_on_tokens_is_one_line(tiny_models):
    model = load_causal_lm(ModelConfig(name_or_path=str(tiny_models["llama"])))
    model.config.return_dict = False
    with pytest.raises(UserError, match="LlamaForCausalLM cannot be trained on tokens alone"):
        policy_on(model)
    model.config.return_dict = True
    model.lm_head.weight.data[5] = float("nan")
    with pytest.raises(UserError, match="the logits of LlamaForCausalLM are not finite; look at its weights"):
        policy_on(model)
