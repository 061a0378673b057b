"""A folder is what it says it is: adapters, a policy of ours, a model with a value head, a reward model."""

import json
import shlex
import shutil
import warnings

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_policy import CRITICS, batch, make_policy
from tiny_runs import make_config
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf.config import DataConfig, GenerateConfig, ModelConfig, RewardModelConfig, SamplingConfig, SFTConfig
from rlhf.doctor.memory import check_weights_fit
from rlhf.errors import UserError
from rlhf.models.load import load_causal_lm
from rlhf.models.tokenizer import load_tokenizer
from rlhf.policy.files import load_policy, save_policy
from rlhf.rewards import RewardSum
from rlhf.rewards.learned import RewardModel
from rlhf.stages import reward_model, sft
from rlhf.stages.evaluate import policy_of
from rlhf.stages.generate import run_generate
from rlhf.stages.ppo import build_policy, build_trainer, run_ppo

IDS = torch.arange(3, 15).unsqueeze(0)
CLOSE = {"rtol": 1e-4, "atol": 2e-5}
LORA = {"r": 4, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
KINDS = {
    "lora": peft.LoraConfig(**LORA),
    "rslora": peft.LoraConfig(**LORA, use_rslora=True),
    "dora": peft.LoraConfig(**LORA, use_dora=True),
    "tied head": peft.LoraConfig(**LORA | {"target_modules": ["q_proj", "lm_head"]}),
    "new head": peft.LoraConfig(**LORA, modules_to_save=["lm_head"]),
    "new embedding": peft.LoraConfig(**LORA, modules_to_save=["embed_tokens"]),
    "IA3": peft.IA3Config(
        target_modules=LORA["target_modules"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"
    ),
    "LoHa": peft.LoHaConfig(r=4, target_modules=LORA["target_modules"], task_type="CAUSAL_LM"),
    "tied embedding": peft.LoraConfig(**LORA, modules_to_save=["embed_tokens"], ensure_weight_tying=True),
    "prompt": peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
}
UNMERGEABLE = {
    "holds PROMPT_TUNING, which cannot be merged": KINDS.pop("prompt"),
    r"kind \(LORA\) cannot be merged into LlamaForCausalLM: .*lora_bias": peft.LoraConfig(**LORA, lora_bias=True),
    r"kind \(LORA\) cannot be merged .*aLoRA": peft.LoraConfig(**LORA, alora_invocation_tokens=[5]),
    r"kind \(ADAPTION_PROMPT\) cannot be merged": peft.AdaptionPromptConfig(
        adapter_len=4, adapter_layers=1, task_type="CAUSAL_LM"
    ),
}


def adapted(base, settings=KINDS["lora"], auto_class=AutoModelForCausalLM, **options):
    """A PEFT model on a tiny base, its adapters away from where they begin."""
    torch.manual_seed(0)
    model = peft.get_peft_model(auto_class.from_pretrained(base, **options), settings)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def load(folder, **options):
    return load_causal_lm(ModelConfig(name_or_path=str(folder), **options))


def edit(folder, **changes):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_from_elsewhere_are_merged_into_their_base(tiny_models, tmp_path, kind):
    elsewhere = adapted(tiny_models["llama"], KINDS[kind])
    elsewhere.save_pretrained(tmp_path / "adapters")
    expected = elsewhere(input_ids=IDS).logits
    model = load(tmp_path / "adapters")
    torch.testing.assert_close(model(input_ids=IDS).logits, expected, **CLOSE)
    assert (load(tiny_models["llama"])(input_ids=IDS).logits - expected).abs().max() > 0.1
    model.save_pretrained(tmp_path / "again")
    assert torch.equal(load(tmp_path / "again")(input_ids=IDS).logits, model(input_ids=IDS).logits)
    assert load(tmp_path / "adapters", dtype="bfloat16").dtype == torch.bfloat16


def test_tokens_that_came_with_the_adapters(tiny_models, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_models["llama"])
    model.resize_token_embeddings(330, mean_resizing=False)
    model.get_input_embeddings().weight.data[320:].normal_()
    wrapper = peft.get_peft_model(model, KINDS["lora"])
    wrapper.save_pretrained(tmp_path, save_embedding_layers=True)
    new = torch.tensor([[3, 325, 329]])
    torch.testing.assert_close(load(tmp_path)(input_ids=new).logits, wrapper(input_ids=new).logits, **CLOSE)


def drop(tensors):
    tensors.pop(min(tensors))


def add(tensors):
    tensors["base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight"] = torch.zeros(4, 32)


def cut(tensors):
    tensors[min(tensors)] = tensors[min(tensors)][:2].clone()


@pytest.mark.parametrize(
    ("damage", "message"), [(drop, "is missing"), (add, "has no place"), (cut, r"has shape \(2, \d+\), expected \(4,")]
)
def test_adapters_are_loaded_whole_or_not_at_all(tiny_models, tmp_path, damage, message):
    adapted(tiny_models["llama"]).save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    damage(tensors)
    save_file(tensors, file)
    with pytest.raises(UserError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"), [(drop, "is missing, and would be random"), (add, "has no place in the model")]
)
def test_models_are_loaded_whole_or_not_at_all(tiny_models, tmp_path, damage, message):
    folder = shutil.copytree(tiny_models["llama"], tmp_path / "model")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    damage(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_model_name_or_path": None}, "does not say for which model; write its name as base_model_name_or_path"),
        ({"base_model_name_or_path": 5}, "does not say for which model"),
        ({"base_model_name_or_path": "/nowhere/model"}, "for the model '/nowhere/model', which is not there"),
    ],
)
def test_a_base_that_is_not_there_is_one_line(tiny_models, tmp_path, changes, message):
    adapted(tiny_models["llama"]).save_pretrained(tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        load(tmp_path)


def test_adapters_of_another_name_are_in_a_folder_of_it(tiny_models, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_models["llama"])
    peft.get_peft_model(model, KINDS["lora"], adapter_name="mine").save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"adapters are in folders in it: name one, such as .*/mine"):
        load(tmp_path)
    load(tmp_path / "mine")


def test_adapters_in_a_pickle_are_refused_with_a_command_that_works(tiny_models, tmp_path, monkeypatch):
    elsewhere = adapted(tiny_models["llama"])
    elsewhere.save_pretrained(tmp_path)
    safe = tmp_path / "adapter_model.safetensors"
    torch.save(load_file(safe), safe.with_suffix(".bin"))
    safe.unlink()
    with pytest.raises(UserError, match=r"adapter_model.bin is a pickle, which may run code") as refusal:
        load(tmp_path)
    _, _, code, folder = shlex.split("python -c" + str(refusal.value).partition("python -c")[2])
    monkeypatch.setattr("sys.argv", ["-c", folder])
    exec(code, {})
    torch.testing.assert_close(load(tmp_path)(input_ids=IDS).logits, elsewhere(input_ids=IDS).logits, **CLOSE)


def test_a_base_beside_the_adapters(tiny_models, tmp_path):
    shutil.copytree(tiny_models["llama"], tmp_path / "base")
    adapted(tiny_models["llama"]).save_pretrained(tmp_path / "adapters")
    edit(tmp_path / "adapters", base_model_name_or_path="../base")
    assert load(tmp_path / "adapters").dtype == torch.float32
    edit(tmp_path / "adapters", base_model_name_or_path="../adapters")
    with pytest.raises(UserError, match="holds adapters for themselves; write the name of their model as"):
        load(tmp_path / "adapters")


@pytest.mark.parametrize("message", UNMERGEABLE)
def test_adapters_that_cannot_be_merged_are_one_line(tiny_models, tmp_path, message):
    adapted(tiny_models["llama"], UNMERGEABLE[message]).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=message) as refusal:
        load(tmp_path)
    assert "\n" not in str(refusal.value)


def test_the_tokenizer_is_the_one_saved_with_the_adapters_or_the_base_s(tiny_models, tmp_path):
    adapted(tiny_models["llama"]).save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).eos_token == "<|eos|>"
    tokenizer = load_tokenizer(str(tiny_models["llama"]))
    tokenizer.add_special_tokens({"eos_token": "<|end|>"})
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).eos_token == "<|end|>"


def test_ppo_from_adapters_has_them_in_its_reference(tiny_models, tmp_path, pairs):
    elsewhere = adapted(tiny_models["llama"])
    elsewhere.save_pretrained(tmp_path / "adapters")
    config = make_config(tmp_path / "adapters", pairs)
    trainer = build_trainer(config, RewardSum.from_specs(config.rewards))
    with trainer.policy.reference(), torch.no_grad():
        reference = trainer.policy.wrapper.pretrained_model(input_ids=IDS).logits
    torch.testing.assert_close(reference, elsewhere(input_ids=IDS).logits, **CLOSE)


@pytest.mark.parametrize("critic", CRITICS)
def test_a_second_round_starts_where_the_first_ended(tiny_models, tmp_path, pairs, critic):
    first = make_policy(tiny_models["llama"], critic)
    save_policy(first, tmp_path / "first")
    config = make_config(tmp_path / "first", pairs, critic=critic, keep_critic=True)
    second = build_policy(config, load(tmp_path / "first"))
    ours, theirs = second(*batch()), first(*batch())
    torch.testing.assert_close(ours.logprobs, theirs.logprobs, **CLOSE)
    torch.testing.assert_close(ours.values, theirs.values, **CLOSE)
    with second.reference():
        assert torch.equal(second(*batch(), with_values=False).logprobs, ours.logprobs)
    save_policy(second, tmp_path / "second")  # and a third, from a critic that has a rank of its own
    assert torch.equal(load_policy(tmp_path / "second")(*batch()).values, ours.values)
    config = make_config(tmp_path / "second", pairs, critic=critic, keep_critic=True)
    third = build_policy(config, load(tmp_path / "second"))
    torch.testing.assert_close(third(*batch()).values, theirs.values, **CLOSE)


@pytest.mark.parametrize("critic", ["shared", "detached", "separate"])
def test_a_second_round_in_full(tiny_models, tmp_path, pairs, critic):
    config = make_config(tiny_models["llama"], pairs, critic=critic, lora=None)
    first = build_policy(config, load(tiny_models["llama"]))
    for _, parameter in first.trainable:
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    save_policy(first, tmp_path)
    config = make_config(tmp_path, pairs, critic=critic, lora=None, keep_critic=True)
    second = build_policy(config, load(tmp_path))
    for ours, theirs in zip(second(*batch()), first(*batch()), strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


def test_without_keep_critic_the_critic_is_new(tiny_models, tmp_path, pairs):
    save_policy(make_policy(tiny_models["llama"]), tmp_path / "first")
    second = build_policy(make_config(tmp_path / "first", pairs), load(tmp_path / "first"))
    assert second.new_critic
    assert not second(*batch()).values.any()


def test_a_critic_of_another_kind_is_refused(tiny_models, tmp_path, pairs):
    save_policy(make_policy(tiny_models["llama"], "shared"), tmp_path / "first")
    for folder, message in ((tmp_path / "first", "is 'shared'; make it that"), (tiny_models["llama"], "has no critic")):
        with pytest.raises(UserError, match=message):
            build_policy(make_config(folder, pairs, keep_critic=True), load(folder))


def test_a_round_from_the_policy_folder_of_a_run(tiny_models, tmp_path, pairs, capsys):
    config = make_config(tiny_models["llama"], pairs, output_dir=str(tmp_path / "1"), num_updates=1)
    first = run_ppo(config)
    again = make_config(first, pairs, output_dir=str(tmp_path / "2"), num_updates=1, keep_critic=True)
    second = run_ppo(again)
    rows = [json.loads(line) for line in (tmp_path / "2" / "metrics.jsonl").read_text().splitlines()]
    assert "its critic goes on" in capsys.readouterr().out
    assert abs(rows[0]["objective/kl"]) < 1e-4  # the reference is the first run's policy
    policy, _ = policy_of(ModelConfig(name_or_path=str(second)))
    assert policy.base_name == str(first.resolve())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_generate_from_a_policy_folder_heeds_dtype(tiny_models, tmp_path, dtype):
    save_policy(make_policy(tiny_models["llama"]), tmp_path / "policy")
    model = ModelConfig(name_or_path=str(tmp_path / "policy"), dtype=dtype)
    merged = tmp_path / "merged"
    sampling = SamplingConfig(max_new_tokens=4)
    run_generate(GenerateConfig(model=model, prompt=["Show"], sampling=sampling, merge_to=str(merged)))
    stored = load_file(merged / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {getattr(torch, dtype)}


def test_a_value_head_of_trl_s_is_a_critic(tiny_models, tmp_path, pairs):
    from rlhf import AutoModelForCausalLMWithValueHead

    classic = AutoModelForCausalLMWithValueHead.from_pretrained(tiny_models["llama"])
    classic.v_head.summary.weight.data.normal_()
    classic.save_pretrained(tmp_path)
    policy = build_policy(make_config(tmp_path, pairs, critic="detached", keep_critic=True), load(tmp_path))
    assert torch.equal(policy.wrapper.v_head.summary.weight, classic.v_head.summary.weight)


def test_a_reward_model_of_adapters(tiny_models, tmp_path):
    settings = peft.LoraConfig(r=4, target_modules=["q_proj"], task_type="SEQ_CLS", modules_to_save=["score"])
    model = adapted(tiny_models["llama"], settings, AutoModelForSequenceClassification, num_labels=1)
    model.save_pretrained(tmp_path)
    reward = RewardModel(str(tmp_path))
    [found] = reward(["Show"], ["a button"])
    ids = torch.tensor([reward.encode("Show", "a button")])
    model.config.pad_token_id = reward.tokenizer.pad_token_id
    assert found == pytest.approx(float(model(input_ids=ids).logits), abs=1e-4)


def test_every_stage_merges_adapters(tiny_models, tmp_path, pairs):
    elsewhere = adapted(tiny_models["llama"])
    elsewhere.save_pretrained(tmp_path)
    data, model = DataConfig(train=pairs, eval=pairs), ModelConfig(name_or_path=str(tmp_path))
    from_sft, _ = sft._build(SFTConfig(model=model, data=data), [])
    from_reward, _ = reward_model._build(RewardModelConfig(model=model, data=data))
    from_evaluate, _ = policy_of(model)
    expected = elsewhere(input_ids=IDS, output_hidden_states=True).hidden_states[-1]
    for trunk in (from_sft.base_model, from_reward.base_model, from_evaluate.language_model.base_model):
        torch.testing.assert_close(trunk(input_ids=IDS).last_hidden_state, expected, **CLOSE)
    assert check_weights_fit(make_config(model.name_or_path, data.train)) is None


def test_a_language_model_is_no_reward_model(tiny_models, tmp_path):
    with pytest.raises(ValueError, match=r"'score.weight' is missing, and would be random"):
        RewardModel(str(tiny_models["llama"]))
    adapted(tiny_models["llama"]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"'score.weight' is missing"):
        RewardModel(str(tmp_path))


def test_a_reward_model_is_no_language_model(tiny_models, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(tiny_models["llama"], num_labels=1)
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"'score.weight' has no place"):
        load(tmp_path)


def test_adapters_cannot_go_into_four_bits(tiny_models, tmp_path):
    save_policy(make_policy(tiny_models["llama"]), tmp_path)
    said = json.loads((tmp_path / "policy.json").read_text())
    (tmp_path / "policy.json").write_text(json.dumps(said | {"quantization": "4bit"}))
    with warnings.catch_warnings(), pytest.raises(UserError, match="cannot be merged into a base in 4bit"):
        load(tmp_path)


def test_the_revision_of_the_base_is_the_one_that_the_adapters_name(tiny_models, tmp_path, monkeypatch):
    """Two revisions of a hub model, as they lie in the cache."""
    cache = tmp_path / "hub" / "models--me--base"
    for name, scale in (("main", 1.0), ("old", 2.0)):
        snapshot = cache / "snapshots" / (40 * name[0])
        shutil.copytree(tiny_models["llama"], snapshot)
        tensors = {key: scale * tensor for key, tensor in load_file(snapshot / "model.safetensors").items()}
        save_file(tensors, snapshot / "model.safetensors", metadata={"format": "pt"})
        (cache / "refs").mkdir(exist_ok=True)
        (cache / "refs" / name).write_text(snapshot.name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    adapters = tmp_path / "adapters"
    elsewhere = adapted(cache / "snapshots" / (40 * "o"))
    elsewhere.save_pretrained(adapters)
    edit(adapters, base_model_name_or_path="me/base", revision="old")
    expected = elsewhere(input_ids=IDS).logits
    torch.testing.assert_close(load(adapters)(input_ids=IDS).logits, expected, **CLOSE)
    edit(adapters, revision=None)
    assert (load(adapters)(input_ids=IDS).logits - expected).abs().max() > 0.01
    edit(adapters, revision="new")
    with pytest.raises(UserError, match=r"holds adapters for another model: .*'me/base'"):
        load(adapters)
