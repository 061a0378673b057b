"""How a Policy is put together: trained in full with a reference of its own, or from a wrapper made elsewhere."""

import pytest
import torch
from tiny_policy import batch

from rlhf.config import LoraConfig, ModelConfig
from rlhf.errors import UserError
from rlhf.fast.lora import FusedLinear
from rlhf.models.load import load_causal_lm
from rlhf.policy.policy import Policy
from rlhf.policy.value_head import CRITIC_ADAPTER, POLICY_ADAPTER, ValueHeadModel, wrap_with_value_head


@pytest.fixture
def model(tiny_models):
    return load_causal_lm(ModelConfig(name_or_path=str(tiny_models["gpt2"])))


@pytest.fixture
def reference(tiny_models):
    return load_causal_lm(ModelConfig(name_or_path=str(tiny_models["gpt2"])))


def stir(model) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)


def test_all_weights_are_trained_and_none_of_the_reference(model, reference):
    policy = Policy(ValueHeadModel(model), "shared", reference)
    stir(model)
    sequence_ids, prompt_lengths, mask = batch()
    result = policy(sequence_ids, prompt_lengths, mask)
    with policy.reference():
        refs = policy(sequence_ids, prompt_lengths, mask, with_values=False).logprobs
    for row in range(3):
        n = int(prompt_lengths[row] + mask[row].sum())
        ids = sequence_ids[row : row + 1, :n]
        span = slice(int(prompt_lengths[row]) - 1, n - 1)
        for found, network in ((result.logprobs, model), (refs, reference)):
            logprobs = network(ids).logits[0, span].log_softmax(-1)
            expected = logprobs.gather(-1, ids[0, span.start + 1 : n].unsqueeze(-1)).squeeze(-1)
            torch.testing.assert_close(found[row][mask[row]], expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(result.logprobs, refs)
    assert not refs.requires_grad
    assert torch.equal(policy(sequence_ids, prompt_lengths, mask).logprobs, result.logprobs)  # back to the policy
    trained = {id(parameter) for _, parameter in policy.trainable}
    assert trained == {id(p) for p in [*model.parameters(), *policy.wrapper.v_head.parameters()]}
    assert not any(p.requires_grad for p in reference.parameters())
    assert {id(p) for p in policy.critic_parameters()} == {id(p) for p in policy.wrapper.v_head.parameters()}
    assert policy.language_model is model
    assert policy.base_name == model.config._name_or_path


def test_without_a_reference_or_with_an_adapter_that_is_not_there_it_is_refused(model, reference):
    with pytest.raises(UserError, match="is trained in full and has no reference; give ref_model"):
        Policy(ValueHeadModel(model), "shared")
    with pytest.raises(UserError, match="critic is 'adapter', but the model has no adapter called 'critic'"):
        Policy(ValueHeadModel(model), "adapter", reference)
    wrapper = wrap_with_value_head(model, LoraConfig(r=2), "shared")
    with pytest.raises(UserError, match="critic is 'adapter', but the model has no adapter called 'critic'"):
        Policy(wrapper, "adapter")


def test_adapters_may_have_a_frozen_reference_of_their_own(model, reference):
    policy = Policy(wrap_with_value_head(model, LoraConfig(r=2), "shared"), "shared", reference)
    stir(reference)  # now it is not the base
    with policy.reference():
        refs = policy(*batch(), with_values=False).logprobs
    assert not torch.allclose(refs, policy(*batch()).logprobs)


def test_what_a_wrapper_brings_is_put_right(model):
    """Another active adapter, dropout, eval mode."""
    wrapper = wrap_with_value_head(model, LoraConfig(r=2), "adapter")
    wrapper.pretrained_model.set_adapter(CRITIC_ADAPTER)  # freezes the other one
    for name, parameter in wrapper.named_parameters():
        parameter.requires_grad_("lora_" in name or "v_head" in name)
    for module in wrapper.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    wrapper.eval()
    policy = Policy(wrapper, "adapter")
    assert policy.wrapper.pretrained_model.active_adapter == POLICY_ADAPTER
    assert all(parameter.requires_grad for _, parameter in policy.trainable)
    assert any(f".{POLICY_ADAPTER}." in name for name, _ in policy.trainable)
    assert policy.training
    inputs = batch()  # once: it seeds the generator that dropout would draw from
    assert torch.equal(policy(*inputs).logprobs, policy(*inputs).logprobs)
    assert not policy.new_critic  # the wrapper's head may have been trained
    assert policy.fast_paths
    assert any(isinstance(module, FusedLinear) for module in policy.modules())


def test_a_model_that_alters_its_logits_becomes_no_policy(model):
    model.register_forward_hook(lambda module, inputs, output: setattr(output, "logits", output.logits.tanh()))
    with pytest.raises(UserError, match="does more to its logits"):
        Policy.with_lora(model, LoraConfig(r=2), "shared")


def test_a_new_critic_is_one_until_it_is_told_a_value(model):
    policy = Policy.with_lora(model, LoraConfig(r=2, alpha=6, target_modules=["c_attn"]), "shared")
    assert policy.new_critic
    assert policy.fast_paths
    assert policy.lora == LoraConfig(r=2, alpha=6, target_modules=["c_attn"])
    policy.start_values_at(0.5)
    assert not policy.new_critic
