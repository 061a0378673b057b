"""Faults of policies and reward models that nobody would have noticed: each is mended, or one line says so."""

import copy
import json
import shutil

import pytest
import torch
from chat_folders import save_chat_model
from safetensors.torch import load_file
from test_reward_model import ROWS
from tiny_data import write_jsonl
from tiny_policy import batch, make_policy
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from rlhf.cli import main
from rlhf.config import GenerateConfig, LoraConfig, ModelConfig, SamplingConfig
from rlhf.errors import UserError
from rlhf.models.load import load_causal_lm
from rlhf.policy.files import load_policy, save_merged, save_policy, write_stop_ids
from rlhf.policy.policy import Policy
from rlhf.report.card_parts import load_policy_code
from rlhf.rewards.learned import RewardModel
from rlhf.sampling.stopping import stop_token_ids
from rlhf.stages import reward_model
from rlhf.stages.evaluate import policy_of
from rlhf.stages.generate import run_generate

FEW = SamplingConfig(max_new_tokens=2)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Puts a folder into the cache of the hub, under a name; the hub itself cannot be reached."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def put(folder, name):
        cache = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        shutil.copytree(folder, cache / "snapshots" / (40 * "a"))
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text(40 * "a")

    return put


# --- a policy on the hub


@pytest.mark.parametrize("in_full", [False, True])
def test_the_reference_of_a_policy_on_the_hub_is_its_base(tiny_models, tmp_path, hub, in_full):
    first = make_policy(tiny_models["llama"], "shared")
    if in_full:
        first = Policy.in_full(load_causal_lm(ModelConfig(name_or_path=str(tiny_models["llama"]))), "shared")
        first.language_model.lm_head.weight.data.mul_(2)
    save_policy(first, tmp_path / "policy")
    AutoTokenizer.from_pretrained(tiny_models["llama"]).save_pretrained(tmp_path / "policy")
    hub(tmp_path / "policy", "me/policy")
    again, _ = policy_of(ModelConfig(name_or_path="me/policy"))
    assert again.base_name == str(tiny_models["llama"])
    ours = again(*batch()).logprobs
    assert torch.equal(ours, first(*batch()).logprobs)
    with again.reference(), first.reference():
        assert torch.equal(again(*batch()).logprobs, first(*batch()).logprobs)
        assert not torch.equal(again(*batch()).logprobs, ours)


def test_another_model_on_the_hub_is_no_policy(tiny_models, hub):
    hub(tiny_models["llama"], "me/model")
    policy, _ = policy_of(ModelConfig(name_or_path="me/model"))
    assert policy.base_name == "me/model"


# --- the tokenizer saved with a policy


def test_the_tokenizer_is_the_one_saved_with_the_policy(tiny_models, tmp_path):
    save_policy(make_policy(tiny_models["llama"]), tmp_path)
    _, tokenizer = policy_of(ModelConfig(name_or_path=str(tmp_path)))
    assert "Mine:" not in tokenizer.chat_template  # none was saved: the base's
    tokenizer.chat_template = "Mine: " + tokenizer.chat_template
    tokenizer.save_pretrained(tmp_path)
    _, again = policy_of(ModelConfig(name_or_path=str(tmp_path)))
    assert again.chat_template == tokenizer.chat_template


# --- where an exported model stops


def test_an_exported_model_stops_where_the_policy_does(tiny_models, tmp_path):
    """The base's generation_config.json does not name the token with which its chat template closes an answer."""
    base = save_chat_model(tmp_path / "base", tiny_models["gpt2"], "template only")
    save_policy(make_policy(base), tmp_path / "policy")
    model, merged = ModelConfig(name_or_path=str(tmp_path / "policy")), tmp_path / "merged"
    run_generate(GenerateConfig(model=model, prompt=["Show"], sampling=FEW, merge_to=str(merged)))
    tokenizer = AutoTokenizer.from_pretrained(base)
    expected = tokenizer.convert_tokens_to_ids(["<eos>", "<end_of_turn>"])
    assert GenerationConfig.from_pretrained(base).eos_token_id == expected[:1]
    assert GenerationConfig.from_pretrained(merged).eos_token_id == expected
    assert AutoModelForCausalLM.from_pretrained(merged).generation_config.eos_token_id == expected


def test_a_policy_in_full_does_not_change_while_it_is_saved(tiny_models, tmp_path):
    base = save_chat_model(tmp_path / "base", tiny_models["gpt2"], "template only")
    policy = Policy.in_full(load_causal_lm(ModelConfig(name_or_path=str(base))), "shared")
    before = copy.deepcopy(policy.language_model.generation_config)
    stop_ids = stop_token_ids(policy.language_model, AutoTokenizer.from_pretrained(base))
    save_policy(policy, tmp_path / "policy")
    write_stop_ids(policy, tmp_path / "policy", stop_ids)
    assert len(stop_ids) == 2
    assert policy.language_model.generation_config.to_dict() == before.to_dict()
    assert load_policy(tmp_path / "policy").language_model.generation_config.eos_token_id == stop_ids


# --- the head of a reward model


def test_the_head_of_a_reward_model_is_trained_in_float32(tiny_models, tmp_path, monkeypatch):
    run_trainer, trained = reward_model.run_trainer, {}

    def run(trainer, *rest):
        run_trainer(trainer, *rest)
        for name, parameter in trainer.model.named_parameters():
            if parameter.requires_grad:
                moments = trainer.optimizer.optimizer.state[parameter]
                trained[name] = {parameter.dtype, moments["exp_avg"].dtype, moments["exp_avg_sq"].dtype}

    monkeypatch.setattr(reward_model, "run_trainer", run)
    rows = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    for fast in ("true", "false"):
        main(
            f"reward --output_dir {tmp_path / fast} --model.name_or_path {tiny_models['llama']} --data.train {rows} "
            f"--data.eval {rows} --model.dtype bfloat16 --lora.r 4 --batch_size 4 --fast_paths {fast}".split()
        )
        assert any(".score." in name for name in trained)
        assert all(types == {torch.float32} for types in trained.values())
        stored = load_file(tmp_path / fast / "model" / "model.safetensors")
        assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
        scores = RewardModel(str(tmp_path / fast / "model"))(["Show", "Show"], ["a button", "text"])
        assert all(torch.tensor(scores).isfinite())


# --- a critic's adapters


@pytest.mark.parametrize(
    ("critic", "targets", "where"),
    [
        ("branch", ["layers.0.self_attn.q_proj"], r"branch \(critic_layers: 1\)"),
        ("branch", ["embed_tokens"], r"branch \(critic_layers: 1\)"),
        ("branch", ["lm_head"], r"branch \(critic_layers: 1\)"),
        ("adapter", ["lm_head"], "trunk"),
    ],
)
def test_a_critic_without_adapters_is_refused(tiny_models, critic, targets, where):
    model = load_causal_lm(ModelConfig(name_or_path=str(tiny_models["llama"])))
    message = (
        rf"lora.target_modules is .*{targets[0]}.*, none of which is in the {where}, so that critic: {critic} has no"
    )
    with pytest.raises(UserError, match=message + " adapters; .* critic: detached"):
        Policy.with_lora(model, LoraConfig(r=4, target_modules=targets), critic)


@pytest.mark.parametrize(
    ("critic", "targets"),
    [("branch", ["layers.1.self_attn.q_proj"]), ("adapter", ["embed_tokens"]), ("detached", ["lm_head"])],
)
def test_one_adapter_where_the_value_comes_through_will_do(tiny_models, critic, targets):
    model = load_causal_lm(ModelConfig(name_or_path=str(tiny_models["llama"])))
    Policy.with_lora(model, LoraConfig(r=4, target_modules=targets), critic)(*batch()).values.sum().backward()


# --- four bits


def test_a_policy_that_cannot_be_merged_is_refused_before_the_work(tiny_models, tmp_path, monkeypatch):
    monkeypatch.setattr("rlhf.policy.files.is_quantized", lambda model: True)
    monkeypatch.setattr("rlhf.stages.generate.sample_responses", lambda *_: pytest.fail("sampled first"))
    model = ModelConfig(name_or_path=str(tiny_models["llama"]))
    with pytest.raises(UserError, match="is quantized to 4bit, into which adapters cannot be merged"):
        run_generate(GenerateConfig(model=model, prompt=["Show"], sampling=FEW, merge_to=str(tmp_path / "merged")))


# --- a second round


def test_a_second_round_elsewhere(tiny_models, tmp_path):
    """As docs/how-to/continue-a-policy.md says: by `load_policy` or merged, but not by PEFT from its folder alone."""
    import peft

    save_policy(make_policy(tiny_models["llama"]), tmp_path / "first")
    second = make_policy(tmp_path / "first")
    save_policy(second, tmp_path / "second")
    ids = batch()[0]
    expected = second.language_model(ids).logits
    policy = load_policy(tmp_path / "second")
    torch.testing.assert_close(policy.language_model(ids).logits, expected)
    save_merged(policy, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(merged(ids).logits, expected, rtol=1e-4, atol=1e-4)
    base = peft.PeftConfig.from_pretrained(tmp_path / "second").base_model_name_or_path
    theirs = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "second")
    assert (theirs(ids).logits - expected).abs().max() > 0.1  # else the page can be simpler


def test_the_card_of_a_second_round_does_not_send_people_to_peft(tmp_path):
    """PEFT would put the second round's adapters in the place of the first's, see above."""
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "m"}), encoding="utf-8")
    first, second = (load_policy_code(ModelConfig(name_or_path=name), "", False) for name in ("me/m", str(tmp_path)))
    assert "PeftModel.from_pretrained" in first
    assert "PeftModel" not in second
    assert "load_policy(Path(" in first
    assert "load_policy(Path(" in second
