"""AutoModelForCausalLMWithValueHead: what scripts for TRL expect of the class."""

import copy
import json
import warnings
from pathlib import Path

import pytest
import tiny_classic
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import rlhf
from rlhf import AutoModelForCausalLMWithValueHead as Model
from rlhf import PPOConfig, PPOTrainer
from rlhf.classic.checkpoints import HEAD, save_checkpoint
from rlhf.config import LoraConfig
from rlhf.errors import UserError
from rlhf.models.load import lora_adapters
from rlhf.policy.value_head import ValueHeadModel

TOKEN_IDS = torch.tensor([[5, 17, 200, 31, 8], [9, 4, 3, 77, 12]])


@pytest.fixture(params=["gpt2", "llama"])
def plain(request, tiny_models) -> Path:
    return tiny_models[request.param]


@pytest.fixture
def trl_model(monkeypatch):
    """TRL's own class, where the installed release still has it."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    return pytest.importorskip("trl.experimental.ppo", reason="TRL 1.13 removed it").AutoModelForCausalLMWithValueHead


def lora(folder: Path):
    return lora_adapters(LoraConfig(r=4), AutoModelForCausalLM.from_pretrained(folder))


def trained_adapters(folder: Path, **options):
    model = Model.from_pretrained(folder, peft_config=lora(folder), **options)
    for name, parameter in model.pretrained_model.named_parameters():
        if "lora_B.default" in name:
            parameter.data.normal_(std=0.3)
    return model


def test_forward_is_that_of_trl(plain, trl_model):
    ours = Model.from_pretrained(plain)
    theirs = trl_model.from_pretrained(ours.pretrained_model)
    theirs.v_head.summary.load_state_dict(ours.v_head.summary.state_dict())
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    for options in ({}, {"attention_mask": mask}, {"labels": TOKEN_IDS}):
        with torch.no_grad():
            expected = theirs.eval()(TOKEN_IDS, **options)
            got = ours(TOKEN_IDS, **options)
        assert len(got) == 3
        assert (got[1] is None) is ("labels" not in options)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert got[0].shape == (2, 5, ours.config.vocab_size)
    assert got[2].shape == (2, 5)


def test_a_cache_goes_in_and_comes_out(plain):
    model = Model.from_pretrained(plain)
    with torch.no_grad():
        whole, _, values = model(TOKEN_IDS)
        *_, cache = model(TOKEN_IDS[:, :4], return_past_key_values=True)
        last, _, last_value = model(TOKEN_IDS[:, 4:], past_key_values=cache)
    torch.testing.assert_close(last[:, 0], whole[:, 4], rtol=0, atol=1e-5)
    torch.testing.assert_close(last_value[:, 0], values[:, 4], rtol=0, atol=1e-5)


def test_logits_are_float32_whatever_the_model_is(plain):
    model = Model.from_pretrained(plain, dtype=torch.bfloat16)
    assert model.pretrained_model.dtype == torch.bfloat16
    logits, _, values = model(TOKEN_IDS)
    assert logits.dtype == values.dtype == model.v_head.summary.weight.dtype == torch.float32


def test_a_new_head_is_random_and_normal_on_request(plain):
    torch.manual_seed(0)
    drawn = Model.from_pretrained(plain).v_head.summary
    assert 0 < drawn.weight.abs().max() <= 32**-0.5  # U(-1/sqrt(H), 1/sqrt(H)), H = 32
    assert drawn.bias.item() != 0
    normal = Model.from_pretrained(plain, v_head_init_strategy="normal", v_head_initializer_range=50.0).v_head.summary
    assert 25 < normal.weight.std() < 100
    assert normal.bias.item() == 0
    assert Model.from_pretrained(plain, v_head_init_strategy="normal").v_head.summary.weight.std() < 0.5
    with pytest.raises(UserError, match="v_head_init_strategy is 'zeros'; it must be None or 'normal'"):
        Model.from_pretrained(plain, v_head_init_strategy="zeros")
    with pytest.raises(UserError, match=r"v_head_initializer_range is 0\.1, which has no effect without"):
        Model.from_pretrained(plain, v_head_initializer_range=0.1)


def test_dropout_of_the_head_is_there_when_asked_for(plain):
    asked = Model.from_pretrained(plain, summary_dropout_prob=0.5).train()
    assert asked.v_head.dropout.p == 0.5
    assert not torch.equal(asked(TOKEN_IDS)[2], asked(TOKEN_IDS)[2])
    language_model = AutoModelForCausalLM.from_pretrained(plain)
    assert Model.from_pretrained(language_model).v_head.dropout.p == 0
    language_model.config.summary_dropout_prob = 0.3
    assert Model.from_pretrained(language_model).v_head.dropout.p == 0.3
    with pytest.raises(UserError, match=r"summary_dropout_prob is 1\.5; it must be in \[0, 1\)"):
        Model.from_pretrained(plain, summary_dropout_prob=1.5)


def test_it_is_the_class_that_the_policy_knows(plain):
    model = Model.from_pretrained(plain)
    assert isinstance(model, ValueHeadModel)
    assert model.config is model.pretrained_model.config
    assert [model.is_peft_model, model.is_sequential_parallel, model.is_loaded_in_8bit] == [False] * 3
    model.gradient_checkpointing_enable()
    assert model.pretrained_model.is_activation_checkpointing
    model.gradient_checkpointing_disable()
    assert not model.pretrained_model.is_activation_checkpointing
    assert "input_ids" in model.prepare_inputs_for_generation(TOKEN_IDS, cache_position=torch.arange(5))
    assert model.generate(TOKEN_IDS, max_new_tokens=2, min_new_tokens=2).shape == (2, 7)
    again = copy.deepcopy(model)
    assert again.config is not model.config


def test_state_dict_has_the_names_of_trl_and_goes_back(plain):
    model = Model.from_pretrained(plain)
    names = set(AutoModelForCausalLM.from_pretrained(plain).state_dict())
    assert set(model.state_dict()) == names | set(HEAD)
    other = Model.from_pretrained(plain)
    for parameter in other.parameters():
        parameter.data.add_(1.0)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)
    as_a_part = torch.nn.ModuleDict({"policy": model})
    assert {"policy.v_head.summary.weight", "policy.pretrained_model.lm_head.weight"} <= as_a_part.state_dict().keys()
    as_a_part.load_state_dict(as_a_part.state_dict())
    broken = {name: tensor for name, tensor in model.state_dict().items() if name not in HEAD}
    with pytest.raises(RuntimeError, match=r"v_head\.summary\.weight"):
        other.load_state_dict(broken)


def test_state_dict_of_a_peft_model_is_what_is_trained(plain):
    model = trained_adapters(plain)
    trained = {name.removeprefix("pretrained_model.") for name, p in model.named_parameters() if p.requires_grad}
    assert set(model.state_dict()) == trained
    assert sum("lora_" in name for name in trained) == len(trained) - 2 > 0
    other = Model.from_pretrained(plain, peft_config=lora(plain))
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(TOKEN_IDS), model(TOKEN_IDS), rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="lora_B"):
        other.load_state_dict({name: t for name, t in model.state_dict().items() if "lora_B" not in name})


def test_post_init_takes_the_head(plain):
    model = Model.from_pretrained(plain)
    model.post_init({HEAD[0]: torch.full((1, 32), 2.0), HEAD[1]: torch.tensor([3.0]), "lm_head.weight": torch.zeros(2)})
    assert model.v_head.summary.weight.unique().tolist() == [2.0]
    assert model.v_head.summary.bias.item() == 3
    with pytest.raises(UserError, match=r"v_head\.summary\.bias is missing"):
        model.post_init({HEAD[0]: torch.zeros(1, 32)})


def test_what_cannot_be_wrapped_is_one_line(plain, tmp_path):
    classifier = AutoModelForSequenceClassification.from_pretrained(plain)
    with pytest.raises(UserError, match="ForSequenceClassification has no LM head"):
        Model.from_pretrained(classifier)
    with pytest.raises(UserError, match="a int cannot be given a value head; pass a name, a folder"):
        Model.from_pretrained(5)
    with pytest.raises(UserError, match=r"peft_config is a dict; it must be a peft\.PeftConfig"):
        Model.from_pretrained(plain, peft_config={"r": 8})
    with pytest.raises(UserError, match="reward_adapter needs a PEFT model"):
        Model.from_pretrained(plain, reward_adapter=plain)


def test_encoder_decoders_are_refused_by_name():
    from transformers import T5Config, T5ForConditionalGeneration

    small = T5Config(vocab_size=50, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    with pytest.raises(UserError, match="T5ForConditionalGeneration is an encoder-decoder"):
        Model.from_pretrained(T5ForConditionalGeneration(small))
    with pytest.raises(UserError, match=r"AutoModelForSeq2SeqLMWithValueHead.*decoder-only.*trl==0\.11\.4"):
        _ = rlhf.AutoModelForSeq2SeqLMWithValueHead


def test_learned_prompts_are_refused(plain):
    import peft

    settings = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(UserError, match="cannot train a learned prompt"):
        Model.from_pretrained(plain, peft_config=settings)


def test_eight_bits_need_bitsandbytes(plain, hide_modules):
    hide_modules("bitsandbytes")
    with pytest.raises(UserError, match=r"load_in_8bit needs bitsandbytes.*pip install 'rlhf-ppo\[quantized\]'"):
        Model.from_pretrained(plain, load_in_8bit=True)
    assert Model.from_pretrained(plain, load_in_8bit=False).is_loaded_in_8bit is False


def test_peft_config_for_a_folder_with_adapters_is_not_silent(plain, tmp_path):
    trained = trained_adapters(plain)
    trained.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="peft_config has no effect: the model comes with adapters of its own"):
        model = Model.from_pretrained(tmp_path, peft_config=lora(plain))
    torch.testing.assert_close(model(TOKEN_IDS), trained(TOKEN_IDS), rtol=0, atol=1e-6)


@pytest.mark.parametrize("how", ["alone", "with state_dict", "with the head's state_dict"])
def test_saving_a_peft_model_never_loses_its_adapters(plain, tmp_path, how):
    """Scripts pass accelerate's state_dict, which for a PEFT model of TRL's held the head alone."""
    model = trained_adapters(plain)
    states = {"alone": {}, "with state_dict": {"state_dict": model.state_dict()}}
    head = {name: tensor for name, tensor in model.state_dict().items() if name in HEAD}
    model.save_pretrained(tmp_path, **states.get(how, {"state_dict": head}))
    again = Model.from_pretrained(tmp_path)
    torch.testing.assert_close(again(TOKEN_IDS), model(TOKEN_IDS), rtol=0, atol=0)


def test_only_the_main_process_writes_and_no_pickles(plain, tmp_path):
    model = Model.from_pretrained(plain)
    model.save_pretrained(tmp_path / "elsewhere", is_main_process=False)
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(UserError, match="safe_serialization is False; pickles are not written"):
        model.save_pretrained(tmp_path, safe_serialization=False)


OLD_LORA_KEYS = {
    "peft_type",
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "task_type",
    "inference_mode",
    "r",
    "target_modules",
    "lora_alpha",
    "lora_dropout",
    "fan_in_fan_out",
    "bias",
    "use_rslora",
    "modules_to_save",
    "init_lora_weights",
    "layers_to_transform",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
    "megatron_config",
    "megatron_core",
    "loftq_config",
    "use_dora",
    "layer_replication",
}
"""Fields of LoraConfig in PEFT 0.13.2, but for runtime_config, which is not written."""


def test_adapters_for_trl_0_11_hold_no_newer_key(plain, tmp_path):
    model = trained_adapters(plain)
    model.save_pretrained(tmp_path / "new")
    model.save_pretrained(tmp_path / "old", trl_0_11=True)
    new, old = (json.loads((tmp_path / name / "adapter_config.json").read_text()) for name in ("new", "old"))
    assert new.keys() - OLD_LORA_KEYS
    assert old == {key: value for key, value in new.items() if key in OLD_LORA_KEYS}
    again = Model.from_pretrained(tmp_path / "old")
    torch.testing.assert_close(again(TOKEN_IDS), model(TOKEN_IDS), rtol=0, atol=0)


def test_adapters_that_old_peft_would_compute_otherwise_are_refused(plain, tmp_path):
    import peft

    base = AutoModelForCausalLM.from_pretrained(plain)
    settings = lora_adapters(LoraConfig(r=4), base)
    settings.lora_bias = True
    model = Model.from_pretrained(base, peft_config=settings)
    with pytest.raises(UserError, match=r"adapter 'default' uses lora_bias, which the PEFT of TRL 0\.11 does not have"):
        model.save_pretrained(tmp_path / "bias", trl_0_11=True)
    targets = ["c_fc"] if "gpt2" in type(base).__name__.lower() else ["down_proj"]
    scaled = peft.IA3Config(task_type="CAUSAL_LM", target_modules=targets, feedforward_modules=targets)
    model = Model.from_pretrained(AutoModelForCausalLM.from_pretrained(plain), peft_config=scaled)
    with pytest.raises(UserError, match="trl_0_11 is for LoRA; adapter 'default' is IA3"):
        model.save_pretrained(tmp_path / "ia3", trl_0_11=True)
    assert not list(tmp_path.glob("*/adapter_config.json"))


def reward_adapters(plain: Path, folder: Path):
    """A sequence classifier with LoRA, far from its initialization; returns its scores of every token."""
    import peft

    torch.manual_seed(5)
    base = AutoModelForSequenceClassification.from_pretrained(plain, num_labels=1)
    model = peft.get_peft_model(base, lora_adapters(LoraConfig(r=4), base, "SEQ_CLS"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3)
    model.save_pretrained(folder)
    with torch.no_grad():
        features = model.get_base_model().base_model(TOKEN_IDS).last_hidden_state
        return model.get_base_model().score(features)


def test_a_reward_adapter_scores_and_leaves_the_policy_alone(plain, tmp_path):
    expected = reward_adapters(plain, tmp_path / "reward")
    model = trained_adapters(plain, reward_adapter=tmp_path / "reward").train()
    before = model(TOKEN_IDS)
    torch.testing.assert_close(model.compute_reward_score(TOKEN_IDS), expected, rtol=0, atol=1e-5)
    assert model.training
    torch.testing.assert_close(model(TOKEN_IDS), before, rtol=0, atol=0)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert not [name for name in trained if "reward_adapter" in name or "score" in name]
    with pytest.raises(UserError, match=r"no reward adapter; load it with from_pretrained\(reward_adapter=\)"):
        trained_adapters(plain).compute_reward_score(TOKEN_IDS)


def test_a_step_with_a_reward_adapter_changes_the_policy_alone(plain, tmp_path):
    reward_adapters(plain, tmp_path / "reward")
    model = trained_adapters(plain, reward_adapter=tmp_path / "reward")
    trainer = tiny_classic.make_trainer(plain, model=model, learning_rate=1e-3)
    scores = model.compute_reward_score(TOKEN_IDS)
    before = tiny_classic.parameters(trainer)
    trainer.step(tiny_classic.prompt_ids(plain), tiny_classic.RESPONSES, [1.0, 0.0, 0.5, -1.0])
    torch.testing.assert_close(model.compute_reward_score(TOKEN_IDS), scores, rtol=0, atol=0)
    assert all(not torch.equal(value, before[name]) for name, value in tiny_classic.parameters(trainer).items())


@pytest.mark.parametrize("peft", [False, True])
def test_a_model_of_trls_own_class_is_trained_as_it_is(plain, tmp_path, peft, trl_model):
    """The same step on TRL's object and on ours leads to the same weights."""
    after = []
    for build in (trl_model, Model):
        torch.manual_seed(1)
        language_model = AutoModelForCausalLM.from_pretrained(plain)
        model = build.from_pretrained(language_model, **({"peft_config": lora(plain)} if peft else {}))
        head = torch.linspace(-0.1, 0.1, 32)
        model.v_head.summary.weight.data.copy_(head)
        model.v_head.summary.bias.data.zero_()
        for name, parameter in model.named_parameters():
            if "lora_A" in name:
                parameter.data.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
        trainer = tiny_classic.make_trainer(plain, model=model, learning_rate=1e-3)
        trainer.step(tiny_classic.prompt_ids(plain), tiny_classic.RESPONSES, [1.0, 0.0, 0.5, -1.0])
        after.append(tiny_classic.parameters(trainer))
        trainer.save_pretrained(tmp_path / build.__module__)
    torch.testing.assert_close(after[0], after[1], rtol=0, atol=0)
    folders = [tmp_path / build.__module__ for build in (trl_model, Model)]
    with torch.no_grad():
        torch.testing.assert_close(*(Model.from_pretrained(folder)(TOKEN_IDS) for folder in folders), rtol=0, atol=0)


def test_a_model_with_frozen_adapters_is_refused_by_the_trainer(plain, tmp_path, trl_model):
    """TRL loads adapters frozen: its trainer then trained the value head alone."""
    save_checkpoint(trained_adapters(plain), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(plain)
    with pytest.raises(UserError, match=r"no weight of the model can be trained.*is_trainable=True"):
        PPOTrainer(
            PPOConfig(batch_size=4, mini_batch_size=4), trl_model.from_pretrained(str(tmp_path)), None, tokenizer
        )


def damage(folder: Path, file: str, change) -> None:
    tensors = load_file(folder / file)
    change(tensors)
    save_file(tensors, folder / file, metadata={"format": "pt"})


def test_damaged_numbers_shapes_and_names_are_one_line(plain, tmp_path):
    def check(change, message, model=None, file="model.safetensors"):
        (model or Model.from_pretrained(plain)).save_pretrained(tmp_path)
        damage(tmp_path, file, change)
        with pytest.raises(UserError, match=message) as caught:
            Model.from_pretrained(tmp_path)
        assert "\n" not in str(caught.value)

    def wider(tensors):
        name = next(name for name in tensors if "norm" in name or "ln_f" in name)
        tensors[name] = torch.zeros(99)

    def other_rank(tensors):
        for name, tensor in tensors.items():
            tensors[name] = torch.cat([tensor, tensor], 0 if "lora_A" in name else 1)

    check(lambda t: t[HEAD[1]].fill_(float("nan")), r"v_head\.summary\.bias holds numbers that are not finite")
    check(lambda t: t.update(extra=torch.zeros(2)), r"extra would be left out")
    check(wider, r"(norm|ln_f)\S* has shape \(99,\), the model needs \(32,\)")
    check(other_rank, "does not fit adapter_config.json", trained_adapters(plain), "adapter_model.safetensors")


def test_tensors_beside_a_plain_model_are_named_in_a_warning(plain, tmp_path):
    AutoModelForCausalLM.from_pretrained(plain).save_pretrained(tmp_path)
    damage(tmp_path, "model.safetensors", lambda tensors: tensors.update(extra=torch.zeros(2)))
    with pytest.warns(UserWarning, match="1 tensors have no place in the model, the first is extra"):
        Model.from_pretrained(tmp_path)


def test_a_revision_holds_for_the_head_too(plain, tmp_path, monkeypatch):
    """A repository in the hub's cache with two revisions, as huggingface_hub lays it out."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # transformers asks the hub all the same
    repository = tmp_path / "hub/models--somebody--model"
    for revision, value in (("main", 1.0), ("v2", 2.0)):
        model = Model.from_pretrained(plain)
        model.v_head.summary.bias.data.fill_(value)
        commit = str(int(value)) * 40
        model.save_pretrained(repository / "snapshots" / commit)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / revision).write_text(commit)
    where = {"cache_dir": tmp_path / "hub", "local_files_only": True}
    for options, value in (({}, 1.0), ({"revision": "v2"}, 2.0)):
        model = Model.from_pretrained("somebody/model", **where, **options)
        assert model.v_head.summary.bias.item() == value


def test_push_to_hub_uploads_what_save_pretrained_writes(plain, monkeypatch):
    import huggingface_hub

    seen = {}

    class Hub:
        """What the hub's client answers; a network there is not."""

        def __init__(self, **options):
            seen["client"] = options

        def create_repo(self, repo_id, **options):
            seen["repo"] = (repo_id, options)
            return type("Url", (), {"repo_id": f"somebody/{repo_id}"})

        def upload_folder(self, *, repo_id, folder_path, **options):
            seen["upload"] = (repo_id, options)
            seen["model"] = Model.from_pretrained(folder_path)
            return type("Commit", (), {"commit_url": "https://example.org/commit/1"})

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    model = Model.from_pretrained(plain)
    address = model.push_to_hub("model", private=True, token="secret", commit_message="a head")
    assert address == "https://example.org/commit/1"
    assert seen["client"]["token"] == "secret"
    assert seen["repo"] == ("model", {"private": True, "exist_ok": True})
    assert seen["upload"] == ("somebody/model", {"commit_message": "a head"})
    torch.testing.assert_close(seen["model"](TOKEN_IDS), model(TOKEN_IDS), rtol=0, atol=0)


def test_nothing_warns_on_the_way(plain, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        Model.from_pretrained(plain).save_pretrained(tmp_path)
        Model.from_pretrained(str(tmp_path))
