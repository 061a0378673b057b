"""Adapters that a script brings: under any name and of any kind they are trained, and what is off is the reference."""

import peft
import pytest
import torch
from tiny_classic import SMALL, prompt_ids
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer, create_reference_model
from rlhf.errors import UserError

LLAMA = {"r": 4, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
GPT2 = {"r": 4, "target_modules": ["c_attn"], "task_type": "CAUSAL_LM", "fan_in_fan_out": True}
IDS = torch.tensor([[31, 40, 52, 33, 77, 35, 36]])
RESPONSES = [torch.tensor(ids) for ids in ([31, 40, 52], [40, 300, 41], [77, 1], [35, 36, 37, 38])]


def adapted(folder, settings, name="default"):
    torch.manual_seed(0)
    return peft.get_peft_model(AutoModelForCausalLM.from_pretrained(folder), settings, adapter_name=name)


def trainer_of(folder, model, ref_model=None) -> PPOTrainer:
    wrapper = AutoModelForCausalLMWithValueHead.from_pretrained(model)
    if ref_model == "copy":
        ref_model = create_reference_model(wrapper)
    settings = PPOConfig(**SMALL | {"learning_rate": 1e-2})
    return PPOTrainer(settings, wrapper, ref_model, tokenizer=AutoTokenizer.from_pretrained(folder))


def step(trainer, folder) -> dict:
    return trainer.step(prompt_ids(folder), RESPONSES, [1.0, -1.0, 0.5, 0.0])


@torch.no_grad()
def said(model) -> torch.Tensor:
    return model.eval()(input_ids=IDS, use_cache=False).logits


def reference(trainer) -> torch.Tensor:
    with trainer.policy.reference():
        return said(trainer.policy.reader)


def test_adapters_of_another_name_are_trained_and_saved(tiny_models, tmp_path):
    """The second of two here, with an untrained one beside it that is called default."""
    folder = tiny_models["llama"]
    model = adapted(folder, peft.LoraConfig(**LLAMA))
    model.add_adapter("mine", peft.LoraConfig(**LLAMA, lora_dropout=0.2))
    model.set_adapter("mine")
    trainer = trainer_of(folder, model)
    base = reference(trainer)
    assert step(trainer, folder)["ppo/policy/approxkl"] < 1e-10  # the first ratio is 1
    assert trainer.policy.adapter == model.active_adapter == "mine"
    assert torch.equal(reference(trainer), base)
    trained = said(model)
    assert (trained - base).abs().max() > 0.01
    trainer.model.save_pretrained(tmp_path)
    again = AutoModelForCausalLMWithValueHead.from_pretrained(tmp_path).pretrained_model
    assert torch.equal(said(again), trained)
    assert (tmp_path / "default" / "adapter_config.json").is_file()


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_biases_beside_the_adapters_need_a_reference_of_their_own(tiny_models, bias):
    folder = tiny_models["gpt2"]
    with pytest.raises(UserError, match=r"bias is trained and is no adapter's.*pass ref_model"):
        trainer_of(folder, adapted(folder, peft.LoraConfig(**GPT2, bias=bias)))
    trainer = trainer_of(folder, adapted(folder, peft.LoraConfig(**GPT2, bias=bias)), "copy")
    before = reference(trainer)
    assert step(trainer, folder)["objective/kl"] == 0
    assert torch.equal(reference(trainer), before)
    with pytest.raises(UserError, match="is no adapter's"):
        trainer.ref_model = None


def test_weights_that_were_unfrozen_beside_the_adapters(tiny_models):
    model = adapted(tiny_models["llama"], peft.LoraConfig(**LLAMA))
    model.get_input_embeddings().weight.requires_grad_(True)
    with pytest.raises(UserError, match=r"embed_tokens.weight is trained and is no adapter's"):
        trainer_of(tiny_models["llama"], model)


@pytest.mark.parametrize("how", ["pissa", "pissa_niter_4", "olora"])
def test_a_base_that_the_adapters_took_from_is_no_reference(tiny_models, how):
    folder = tiny_models["llama"]
    with pytest.raises(UserError, match=f"adapter 'default' is '{how}', which takes a part of the base's weights"):
        trainer_of(folder, adapted(folder, peft.LoraConfig(**LLAMA, init_lora_weights=how)))
    stats = step(trainer_of(folder, adapted(folder, peft.LoraConfig(**LLAMA, init_lora_weights=how)), "copy"), folder)
    assert stats["objective/kl"] == 0


EXACT = {
    "some tokens": peft.LoraConfig(**LLAMA, trainable_token_indices=[31, 40]),
    "tied whole embedding": peft.LoraConfig(**LLAMA, modules_to_save=["embed_tokens"], ensure_weight_tying=True),
    "dropout by adapter": peft.LoHaConfig(
        r=4, target_modules=["q_proj"], module_dropout=0.5, rank_dropout=0.5, task_type="CAUSAL_LM"
    ),
    "dropout of its own class": peft.OFTConfig(
        oft_block_size=4, target_modules=["q_proj"], module_dropout=0.5, task_type="CAUSAL_LM"
    ),
}


@pytest.mark.parametrize("kind", EXACT)
def test_kinds_of_adapters(tiny_models, kind):
    folder = tiny_models["llama"]
    model = adapted(folder, EXACT[kind])
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    trainer = trainer_of(folder, model)
    base = said(AutoModelForCausalLM.from_pretrained(folder))
    torch.testing.assert_close(reference(trainer), base)
    found = trainer.policy.train()(IDS, torch.tensor([4]), torch.ones(1, 3, dtype=torch.bool)).logprobs
    expected = said(model).log_softmax(-1)[:, 3:6].gather(-1, IDS[:, 4:].unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)
    assert step(trainer, folder)["ppo/policy/approxkl"] < 1e-10
    torch.testing.assert_close(reference(trainer), base)


def test_adapters_that_cannot_be_trained_here(tiny_models):
    folder = tiny_models["llama"]
    invoked = adapted(folder, peft.LoraConfig(**LLAMA, alora_invocation_tokens=[31]))
    with pytest.raises(UserError, match="has alora_invocation_tokens, which PPO cannot train"):
        trainer_of(folder, invoked)
    with pytest.raises(UserError, match="the policy's adapter is called 'critic', a name kept for the critic's"):
        trainer_of(folder, adapted(folder, peft.LoraConfig(**LLAMA), "critic"))
    merged = adapted(folder, peft.LoraConfig(**LLAMA))
    merged.merge_adapter()
    with pytest.raises(UserError, match=r"'default' is merged into the weights; call unmerge_adapter\(\)"):
        trainer_of(folder, merged)
