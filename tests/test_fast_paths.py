"""What is computed in fewer operations, against the plain way to compute it."""

import peft
import pytest
import torch
from torch import nn

from rlhf.config import LoraConfig, ModelConfig, SamplingConfig
from rlhf.data.examples import TokenizedExample
from rlhf.data.parsing import Example
from rlhf.fast.activations import fuse_activations
from rlhf.fast.attention import use_float32_backward
from rlhf.fast.lora import FusedLinear
from rlhf.fast.packed import can_pack
from rlhf.maths.tensors import entropy_from_logits, logprobs_from_logits
from rlhf.models.head import Head
from rlhf.models.load import load_causal_lm
from rlhf.models.tokenizer import load_tokenizer
from rlhf.policy.logprobs import token_logprobs
from rlhf.policy.merged import decoding, merged, merged_layers
from rlhf.policy.policy import Policy
from rlhf.policy.value_head import POLICY_ADAPTER
from rlhf.sampling.decode import multinomial, sample
from rlhf.sampling.responses import sample_responses

ARCHITECTURES = ["gpt2", "llama"]
FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}
needs_onednn = pytest.mark.skipif(not can_pack(torch.zeros(1)), reason="oneDNN is not part of this PyTorch")


def relative_error(found, exact) -> float:
    found, exact = found.detach().double(), exact.detach().double()
    return float((found - exact).norm() / exact.norm())


def stirred_policy(folder, dtype="float32", fast_paths=True) -> Policy:
    torch.manual_seed(0)
    model = load_causal_lm(ModelConfig(name_or_path=str(folder), dtype=dtype))
    policy = Policy.with_lora(model, LoraConfig(r=4, alpha=8), "shared", fast_paths=fast_paths)
    for _, parameter in policy.trainable:
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return policy


def logprobs_and_gradients(policy: Policy):
    sequence_ids = torch.randint(2, 300, (4, 24), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(16) < torch.tensor([16, 9, 12, 3]).unsqueeze(-1)
    result = policy(sequence_ids, torch.tensor([8, 5, 3, 1]), mask, temperature=0.7, with_entropy=True)
    (result.logprobs.sum() + result.values.square().sum() + 0.1 * result.entropy.sum()).backward()
    return result, torch.cat([p.grad.flatten() for _, p in policy.trainable])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_policy_equals_the_plain_one(tiny_models, architecture):
    fast, slow = stirred_policy(tiny_models[architecture]), stirred_policy(tiny_models[architecture], fast_paths=False)
    (ours, our_gradient), (theirs, their_gradient) = logprobs_and_gradients(fast), logprobs_and_gradients(slow)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **FLOAT32)
    assert relative_error(our_gradient, their_gradient) < 1e-5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_in_bfloat16_it_is_as_near_to_float32_as_the_plain_one(tiny_models, architecture):
    folder = tiny_models[architecture]
    exact, gradient = logprobs_and_gradients(stirred_policy(folder))
    fast, fast_gradient = logprobs_and_gradients(stirred_policy(folder, "bfloat16"))
    slow, slow_gradient = logprobs_and_gradients(stirred_policy(folder, "bfloat16", fast_paths=False))
    fast_error, slow_error = (relative_error(x.logprobs, exact.logprobs) for x in (fast, slow))
    assert fast_error < max(0.01, 1.5 * slow_error)
    assert relative_error(fast_gradient, gradient) < max(0.02, 1.5 * relative_error(slow_gradient, gradient))


@pytest.mark.parametrize("fan_in_fan_out", [False, True])
def test_lora_layer_equals_peft(fan_in_fan_out):
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    base = Conv1D(7, 5) if fan_in_fan_out else nn.Linear(5, 7)
    settings = peft.LoraConfig(r=3, lora_alpha=5, target_modules=["0"], fan_in_fan_out=fan_in_fan_out)
    layer = peft.get_peft_model(nn.Sequential(base), settings).base_model.model[0]
    layer.lora_B["default"].weight.data.normal_()
    x, upstream = torch.randn(2, 4, 5, requires_grad=True), torch.randn(2, 4, 7)
    parameters = [x, layer.lora_A["default"].weight, layer.lora_B["default"].weight]
    expected = layer(x)
    gradients = torch.autograd.grad(expected, parameters, upstream)
    layer.__class__ = FusedLinear
    fused = layer(x)
    torch.testing.assert_close(fused, expected, **FLOAT32)
    for a, b in zip(torch.autograd.grad(fused, parameters, upstream), gradients, strict=True):
        torch.testing.assert_close(a, b, **FLOAT32)
    layer.enable_adapters(False)
    assert torch.equal(layer(x), base(x))


@pytest.mark.parametrize("with_entropy", [False, True])
def test_lm_head_equals_autograd_through_the_logits(monkeypatch, with_entropy):
    torch.manual_seed(0)
    head = nn.Linear(6, 50).requires_grad_(False)
    head.bias.data[3] = -torch.inf  # a token that is never sampled must not make a NaN
    features, ids = torch.randn(11, 6, requires_grad=True), torch.randint(4, 50, (11,))
    weights = torch.randn(2, 11)
    logits = head(features) / 0.7
    expected = torch.stack([logprobs_from_logits(logits, ids), with_entropy * entropy_from_logits(logits)])
    [gradient] = torch.autograd.grad((weights * expected).sum(), features)
    for rows, cached in ((4, 2 * 50), (256, 2**17)):  # three blocks of logits, two parts of each; one of one
        monkeypatch.setattr("rlhf.fast.lm_head.LOGIT_ROWS", rows)
        monkeypatch.setattr("rlhf.policy.logprobs.LOGIT_ROWS", rows)
        monkeypatch.setattr("rlhf.fast.lm_head.CACHED_LOGITS", cached)
        for fast in (True, False):
            found = torch.stack(token_logprobs(features, ids, Head(head), 0.7, with_entropy, fast))
            torch.testing.assert_close(found, expected, **FLOAT32)
            torch.testing.assert_close(torch.autograd.grad((weights * found).sum(), features)[0], gradient, **FLOAT32)
        with torch.no_grad():
            torch.testing.assert_close(
                torch.stack(token_logprobs(features, ids, Head(head), 0.7, with_entropy)), expected
            )


@pytest.mark.parametrize("rows", [4, 256])
def test_a_head_that_is_trained_gets_its_gradient(monkeypatch, rows):
    monkeypatch.setattr("rlhf.policy.logprobs.LOGIT_ROWS", rows)
    torch.manual_seed(0)
    head, features, ids = nn.Linear(6, 50), torch.randn(11, 6), torch.randint(50, (11,))
    token_logprobs(features, ids, Head(head), 0.7, False)[0].sum().backward()
    found, head.weight.grad = head.weight.grad, None
    logprobs_from_logits(head(features) / 0.7, ids).sum().backward()
    torch.testing.assert_close(found, head.weight.grad, **FLOAT32)


def test_a_token_that_is_next_to_impossible_keeps_its_log_probability():
    """e^-150 is no float32; its logarithm is."""
    head = nn.Linear(1, 3, bias=False).requires_grad_(False)
    head.weight.copy_(torch.tensor([[150.0], [0.0], [-30.0]]))
    logprobs, _ = token_logprobs(torch.ones(2, 1), torch.tensor([1, 2]), Head(head), 1.0, False)
    torch.testing.assert_close(logprobs, torch.tensor([-150.0, -180.0]))


def test_no_logits_are_kept_for_the_backward_pass():
    """At most [N, H] numbers per token, whatever the vocabulary."""
    head, features = nn.Linear(8, 5000).requires_grad_(False), torch.randn(30, 8, requires_grad=True)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.append(t.numel()), t)[1], lambda t: t):
        token_logprobs(features, torch.zeros(30, dtype=torch.long), Head(head), 1.0, False)
    assert sizes == [30 * 8]


def test_fused_activation_is_the_same_function():
    from transformers.activations import NewGELUActivation

    model = nn.Sequential(NewGELUActivation())
    x = torch.linspace(-6, 6, 1001, requires_grad=True)
    expected = model(x)
    [gradient] = torch.autograd.grad(expected.sum(), x)
    fuse_activations(model)
    assert type(model[0]) is not NewGELUActivation
    torch.testing.assert_close(model(x), expected, **FLOAT32)
    torch.testing.assert_close(torch.autograd.grad(model(x).sum(), x)[0], gradient, **FLOAT32)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_float32_backward_of_bfloat16_attention(tiny_models, architecture):
    """No further from float32 than PyTorch's own, up to bfloat16's rounding."""
    gradients = []
    for dtype, fast in (("float32", False), ("bfloat16", False), ("bfloat16", True)):
        model = load_causal_lm(ModelConfig(name_or_path=str(tiny_models[architecture]), dtype=dtype))
        if fast:
            use_float32_backward(model)
            assert model.config._attn_implementation != "sdpa"
        embedded = model.get_input_embeddings()(torch.arange(3, 43).view(2, 20)).detach().requires_grad_()
        output = model.base_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
        gradients.append(torch.autograd.grad(output[..., 0].float().sum(), embedded)[0])
    exact, plain_one, ours = gradients
    assert relative_error(ours, exact) < 1.2 * relative_error(plain_one, exact)


@needs_onednn
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_packed_weights_decode_as_merged_ones(tiny_models, architecture, dtype):
    policy = stirred_policy(tiny_models[architecture], dtype)
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    ids = torch.arange(3, 23).view(2, 10)
    with merged(policy):
        expected = policy.language_model(ids).logits
    with decoding(policy, n_rows=2), torch.no_grad():
        found = policy.language_model(ids).logits
    assert relative_error(found, expected) < (1e-5 if dtype == "float32" else 0.02)
    assert relative_error(policy.language_model(ids).logits, expected) < (1e-4 if dtype == "float32" else 0.05)
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.state_dict().items())


@needs_onednn
def test_greedy_responses_are_the_same_from_packed_and_from_merged_weights(tiny_models):
    policy = stirred_policy(tiny_models["gpt2"])
    how = SamplingConfig(max_new_tokens=20, temperature=0)
    responses = []
    for context in (merged(policy), decoding(policy, 2)):
        with context:
            responses.append(sample(policy.language_model, [[5, 6, 7], [8]], how, eos_token_id=0).response_ids)
    assert torch.equal(*responses)


@pytest.mark.parametrize("context", [merged, lambda policy: decoding(policy, 2)], ids=["merged", "decoding"])
def test_the_policy_is_in_eval_mode_only_while_it_decodes(tiny_models, context):
    """In eval mode models ignore gradient checkpointing."""
    policy = stirred_policy(tiny_models["gpt2"])
    with context(policy):
        assert not any(module.training for module in policy.modules())
    assert all(module.training for module in policy.modules())


def test_every_linear_layer_is_packed_once(tiny_models):
    policy = stirred_policy(tiny_models["gpt2"])
    layers = [module for module, _, _ in merged_layers(policy.language_model, POLICY_ADAPTER)]
    assert len(layers) == len(set(layers)) == 2 * 4 + 1  # four in each of two blocks, and the LM head


def test_a_draw_has_the_probability_of_its_token():
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0]).expand(40000, 6)
    drawn = multinomial(probabilities, torch.Generator().manual_seed(0)).squeeze(-1)
    torch.testing.assert_close(drawn.bincount(minlength=6) / 40000, probabilities[0], rtol=0, atol=0.01)
    assert set(drawn.tolist()) == {1, 3, 4}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_without_fast_paths_the_layers_are_those_of_the_libraries(tiny_models, architecture):
    policy = stirred_policy(tiny_models[architecture], fast_paths=False)
    ours = {type(module).__name__ for module in policy.modules() if type(module).__module__.startswith("rlhf.")}
    assert ours == {"Policy", "ValueHeadModel", "ValueHead"}
    assert policy.language_model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_both_ways_sample_the_same_tokens(tiny_models, architecture):
    texts = []
    for fast_paths in (True, False):
        policy = stirred_policy(tiny_models[architecture], fast_paths=fast_paths)
        tokenizer = load_tokenizer(str(tiny_models[architecture]))
        examples = [Example(({"role": "user", "content": "x"},), None, {}, "test")] * 3
        prompts = [TokenizedExample(e, ids, None) for e, ids in zip(examples, ([5, 6, 7], [8], [9, 10]), strict=True)]
        generator = torch.Generator().manual_seed(0)
        texts.append(sample_responses(policy, tokenizer, prompts, SamplingConfig(max_new_tokens=12), generator))
    assert torch.equal(texts[0].sequence_ids, texts[1].sequence_ids)
    assert torch.equal(texts[0].response_mask, texts[1].response_mask)
