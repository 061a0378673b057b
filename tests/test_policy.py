"""The traps of design section 5: one trunk as policy, critic and reference."""

import subprocess
import sys

import pytest
import torch
from tiny_policy import CRITICS, batch, make_policy

from rlhf.config import LoraConfig, ModelConfig
from rlhf.errors import UserError
from rlhf.models.head import require_head
from rlhf.models.load import load_causal_lm
from rlhf.policy.merged import merged, merges
from rlhf.policy.policy import Policy
from rlhf.policy.value_head import POLICY_ADAPTER

ARCHITECTURES = ["gpt2", "llama"]


def zero_grad(policy: Policy) -> None:
    for _, parameter in policy.trainable:
        parameter.grad = None


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_forward_equals_the_plain_model_row_by_row(tiny_models, architecture):
    policy = make_policy(tiny_models[architecture])
    sequence_ids, prompt_lengths, mask = batch()
    result = policy(sequence_ids, prompt_lengths, mask, temperature=0.7, with_entropy=True)
    for row in range(3):
        n = int(prompt_lengths[row] + mask[row].sum())
        logits = policy.wrapper.pretrained_model(input_ids=sequence_ids[row : row + 1, :n]).logits[0] / 0.7
        distribution = torch.distributions.Categorical(logits=logits[prompt_lengths[row] - 1 : n - 1])
        torch.testing.assert_close(
            result.logprobs[row][mask[row]], distribution.log_prob(sequence_ids[row, prompt_lengths[row] : n])
        )
        torch.testing.assert_close(result.entropy[row][mask[row]], distribution.entropy())
    assert not result.logprobs[~mask].any()
    assert not result.values[~mask].any()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_stands_after_the_response_never_matters(tiny_models, architecture):
    policy = make_policy(tiny_models[architecture])
    sequence_ids, prompt_lengths, mask = batch()
    before = policy(sequence_ids, prompt_lengths, mask, with_entropy=True)
    ends = prompt_lengths + mask.sum(-1)
    sequence_ids[torch.arange(9) >= ends.unsqueeze(-1)] = 0
    after = policy(sequence_ids, prompt_lengths, mask, with_entropy=True)
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("critic", CRITICS)
def test_reference_is_the_base_bit_for_bit(tiny_models, architecture, critic):
    policy = make_policy(tiny_models[architecture], critic)
    base = make_policy(tiny_models[architecture], stirred=False)  # LoRA starts at zero
    with policy.reference():
        reference = policy(*batch(), with_values=False)
    assert all(parameter.requires_grad for _, parameter in policy.trainable)  # at once, not only after the next pass
    assert torch.equal(reference.logprobs, base(*batch(), with_values=False).logprobs)
    assert not torch.equal(reference.logprobs, policy(*batch()).logprobs)
    assert all(parameter.requires_grad for _, parameter in policy.trainable)


@pytest.mark.parametrize("critic", CRITICS)
def test_each_loss_reaches_the_parameters_it_should(tiny_models, critic):
    policy = make_policy(tiny_models["gpt2"], critic)
    policy(*batch()).logprobs.sum().backward()
    assert all(p.grad is not None for p in policy.policy_parameters())
    assert all(p.grad is None for p in policy.critic_parameters())
    zero_grad(policy)
    policy(*batch()).values.sum().backward()
    assert all(p.grad is not None for p in policy.critic_parameters())
    assert any(p.grad is not None for p in policy.policy_parameters()) == (critic == "shared")


@pytest.mark.parametrize("critic", ["shared", "adapter", "branch"])
def test_gradient_checkpointing_changes_no_gradient(tiny_models, critic):
    gradients = []
    for checkpointing in (False, True):
        policy = make_policy(tiny_models["gpt2"], critic, **({"gradient_checkpointing": True} if checkpointing else {}))
        assert policy.language_model.is_gradient_checkpointing == checkpointing
        result = policy(*batch())
        (result.logprobs.sum() + result.values.square().sum()).backward()
        gradients.append([p.grad for _, p in policy.trainable])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=1e-5, atol=1e-7)


def test_logits_in_chunks_equal_logits_at_once(tiny_models, monkeypatch):
    policy = make_policy(tiny_models["gpt2"])
    outputs, gradients = [], []
    for rows in (256, 5):  # everything at once; 5 of the 12 tokens at a time
        monkeypatch.setattr("rlhf.fast.lm_head.LOGIT_ROWS", rows)
        zero_grad(policy)
        result = policy(*batch(), with_entropy=True)
        (result.logprobs.sum() + result.entropy.sum()).backward()
        outputs.append(result)
        gradients.append(torch.cat([p.grad.flatten() for p in policy.policy_parameters()]))
    torch.testing.assert_close(outputs[0].logprobs, outputs[1].logprobs)
    torch.testing.assert_close(outputs[0].entropy, outputs[1].entropy)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_merging_for_the_rollout_leaves_no_trace(tiny_models, architecture):
    policy = make_policy(tiny_models[architecture])
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    expected = policy(*batch()).logprobs
    with merged(policy):
        torch.testing.assert_close(policy(*batch(), with_values=False).logprobs, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(policy(*batch()).logprobs, expected)
    after = policy.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_would_cost_more_than_it_gains_is_not_merged(tiny_models, monkeypatch):
    policy = make_policy(tiny_models["gpt2"])
    assert merges(policy)
    policy.divided_trunks = {torch.nn.Identity(): ["a block of another process"]}
    assert not merges(policy)
    policy.divided_trunks = {}
    monkeypatch.setattr("rlhf.policy.merged.is_quantized", lambda model: True)
    assert not merges(policy)


def test_dropout_is_off_even_in_train_mode(tiny_models):
    policy = make_policy(tiny_models["gpt2"])
    assert policy.language_model.training
    inputs = batch()  # once: it seeds the generator that dropout would draw from
    first, second = policy(*inputs), policy(*inputs)
    assert torch.equal(first.logprobs, second.logprobs)
    assert torch.equal(first.values, second.values)


def test_model_that_alters_its_logits_is_refused(tiny_models):
    model = load_causal_lm(ModelConfig(name_or_path=str(tiny_models["gpt2"])))
    require_head(model)
    model.register_forward_hook(lambda module, inputs, output: setattr(output, "logits", output.logits.tanh()))
    with pytest.raises(UserError, match="does more to its logits"):
        require_head(model)


def test_values_start_where_told(tiny_models):
    policy = make_policy(tiny_models["gpt2"], stirred=False)
    policy.start_values_at(1.25)
    sequence_ids, prompt_lengths, mask = batch()
    assert torch.equal(policy(sequence_ids, prompt_lengths, mask).values, 1.25 * mask)


def test_a_policy_loads_no_trainers(tiny_models):
    """TRL's value-head model cannot be had without pandas, pyarrow and wandb: 100 MiB."""
    program = (
        "import sys\n"
        "from rlhf.config import LoraConfig, ModelConfig\n"
        "from rlhf.models.load import load_causal_lm\n"
        "from rlhf.policy.policy import Policy\n"
        f"model = load_causal_lm(ModelConfig(name_or_path={str(tiny_models['gpt2'])!r}))\n"
        "Policy.with_lora(model, LoraConfig(), 'adapter')\n"
        "print(sorted({'trl', 'datasets', 'pandas', 'pyarrow', 'wandb'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


@pytest.mark.parametrize("fast_paths", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_adapters_add_alpha_over_r_times_b_a(tiny_models, architecture, fast_paths):
    """Against a plain model whose weights are W + alpha / r B A; alpha / r is neither 1 nor PEFT's default."""
    folder = ModelConfig(name_or_path=str(tiny_models[architecture]))
    torch.manual_seed(0)
    policy = Policy.with_lora(load_causal_lm(folder), LoraConfig(r=4, alpha=12), "shared", fast_paths=fast_paths)
    assert policy.lora == LoraConfig(r=4, alpha=12, target_modules=policy.lora.target_modules)
    plain = load_causal_lm(folder)
    n_adapted = 0
    for name, layer in policy.language_model.named_modules():
        if hasattr(layer, "lora_A"):
            a, b = layer.lora_A[POLICY_ADAPTER].weight, layer.lora_B[POLICY_ADAPTER].weight
            b.data.normal_(std=0.1)
            update = 12 / 4 * b @ a  # [out, in]
            weight = plain.get_submodule(name).weight
            weight.data += update.t() if architecture == "gpt2" else update  # GPT-2's layers hold W transposed
            n_adapted += 1
    assert n_adapted >= 4
    sequence_ids, prompt_lengths, mask = batch()
    ours = policy(sequence_ids, prompt_lengths, mask, with_values=False).logprobs
    for row in range(3):
        start, n = int(prompt_lengths[row]), int(prompt_lengths[row] + mask[row].sum())
        logprobs = plain(input_ids=sequence_ids[row : row + 1, :n]).logits[0].log_softmax(-1)
        expected = logprobs[start - 1 : n - 1].gather(-1, sequence_ids[row, start:n].unsqueeze(-1)).squeeze(-1)
        torch.testing.assert_close(ours[row][mask[row]], expected, rtol=1e-4, atol=1e-5)
