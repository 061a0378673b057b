"""The critic that branches off: what it computes, of which models, and that it computes no more than that."""

import pytest
import torch
from families import FAMILIES, PLAIN, build, family
from tiny_policy import batch, make_policy

from rlhf.config import LoraConfig, ModelConfig
from rlhf.errors import UserError
from rlhf.models.load import load_causal_lm
from rlhf.policy.files import load_policy, save_policy
from rlhf.policy.merged import lora_layers, merged_weight
from rlhf.policy.policy import Policy
from rlhf.policy.value_head import CRITIC_ADAPTER, POLICY_ADAPTER


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_values_are_those_of_the_policy_s_blocks_and_then_the_critic_s(tiny_models, architecture):
    """Against one plain model whose lower blocks have the policy's weights, and whose upper ones the critic's."""
    policy = make_policy(tiny_models[architecture], "branch", critic_layers=1)
    plain = load_causal_lm(ModelConfig(name_or_path=str(tiny_models[architecture])))
    adapters = {POLICY_ADAPTER: 0, CRITIC_ADAPTER: 0}
    adapted = set(lora_layers(policy.language_model))
    for name, layer in policy.language_model.named_modules():
        if layer in adapted:
            adapter = CRITIC_ADAPTER if CRITIC_ADAPTER in layer.lora_A else POLICY_ADAPTER
            weight = merged_weight(layer, adapter)
            plain.get_submodule(name).weight.data.copy_(weight.t() if architecture == "gpt2" else weight)
            adapters[adapter] += 1
    assert adapters[POLICY_ADAPTER] == adapters[CRITIC_ADAPTER] > 0  # two blocks, one each
    sequence_ids, prompt_lengths, mask = batch()
    values = policy(sequence_ids, prompt_lengths, mask).values
    for row in range(3):
        start, n = int(prompt_lengths[row]), int(prompt_lengths[row] + mask[row].sum())
        states = plain.base_model(input_ids=sequence_ids[row : row + 1, :n]).last_hidden_state[0, start - 1 : n - 1]
        expected = policy.wrapper.v_head(states).squeeze(-1)
        torch.testing.assert_close(values[row][mask[row]], expected, rtol=1e-4, atol=1e-5)


def test_only_the_blocks_of_the_branch_run_twice(tiny_models):
    policy = make_policy(tiny_models["llama"], "branch", critic_layers=1)
    runs = {"lower": 0, "upper": 0}
    for name, block in zip(runs, policy.language_model.model.layers, strict=True):
        attention = block.self_attn
        attention.register_forward_hook(lambda *_, name=name: runs.__setitem__(name, runs[name] + 1))
    policy(*batch())
    assert runs == {"lower": 1, "upper": 2}
    policy(*batch(), with_values=False)
    with policy.reference():
        policy(*batch(), with_values=False)
    assert runs == {"lower": 3, "upper": 4}


def test_an_error_in_the_branch_leaves_the_model_whole(tiny_models):
    policy = make_policy(tiny_models["gpt2"], "branch")
    expected = policy(*batch())
    handle = policy.wrapper.v_head.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        policy(*batch())
    handle.remove()
    for ours, theirs in zip(policy(*batch()), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_a_quarter_of_the_blocks_is_the_default_and_it_is_stored(tiny_models, tmp_path):
    build(family("LlamaConfig", PLAIN, {"num_hidden_layers": 9})).save_pretrained(tmp_path / "base")
    assert make_policy(tmp_path / "base", "branch").wrapper.branch.n_blocks == 2
    of_three = make_policy(tmp_path / "base", "branch", critic_layers=3)
    save_policy(of_three, tmp_path / "policy")
    again = load_policy(tmp_path / "policy")
    assert again.wrapper.branch.n_blocks == 3
    assert torch.equal(again(*batch()).values, of_three(*batch()).values)


@pytest.mark.parametrize(
    "name", ["GPT-2", "OPT", "Falcon", "BioGPT", "OpenAI GPT", "Mixtral", "Gemma 3, multimodal", "DeepSeek-V3", "Mamba"]
)
def test_of_many_kinds_of_models(name):
    policy = Policy.with_lora(build(FAMILIES[name]), LoraConfig(r=4, alpha=8), "branch")
    policy(*batch()).values.sum().backward()
    assert all(parameter.grad is not None for parameter in policy.critic_parameters())
    assert not any(parameter.grad is not None for parameter in policy.policy_parameters())


def test_blocks_that_share_more_than_their_output_are_refused():
    with pytest.raises(UserError, match="hand on more than their output; use critic: adapter"):
        Policy.with_lora(build(FAMILIES["Gemma 3n"]), LoraConfig(r=4, alpha=8), "branch")


def test_a_branch_of_all_blocks_is_refused(tiny_models):
    with pytest.raises(UserError, match="critic_layers is 2, but LlamaForCausalLM has 2 blocks"):
        make_policy(tiny_models["llama"], "branch", critic_layers=2)
