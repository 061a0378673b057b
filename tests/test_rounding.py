"""Rounding is told from mistakes by what it does to the model at hand."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlhf.config import LoraConfig
from rlhf.models.adapters import stirred
from rlhf.models.dropout import ordinary_tokens
from rlhf.models.rounding import is_rounding, jolted, relative_error
from rlhf.policy.merged import merges
from rlhf.policy.policy import Policy


def test_relative_error_by_hand():
    """The difference (1, 0, -1) has the norm sqrt 2, the scatter (-2, 0, 2) sqrt 8."""
    expected = torch.tensor([0.0, 2.0, 4.0])
    for shift in (0.0, 7.0):
        assert relative_error(torch.tensor([1.0, 2.0, 3.0]) + shift, expected) == pytest.approx(0.5)


@pytest.fixture(scope="module", params=range(4))
def noisy(request) -> Policy:
    """A policy in bfloat16 in whose six layers a rounding grows: .03 to .15 in the logits."""
    torch.manual_seed(request.param)
    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 6}
    config = LlamaConfig(**sizes, num_attention_heads=2, initializer_range=0.5)
    return Policy.with_lora(LlamaForCausalLM(config).to(torch.bfloat16), LoraConfig(r=1), critic="detached")


@torch.no_grad()
def test_what_one_rounding_does_is_no_mistake_and_adapters_left_out_are_one(noisy):
    model, ids = noisy.language_model, ordinary_tokens(noisy.language_model)

    def compute():
        return model(input_ids=ids, use_cache=False).logits

    with stirred(noisy.adapters()):
        logits = compute()
        with jolted(model):
            noise = relative_error(compute(), logits)
        assert torch.equal(compute(), logits)
        with noisy.reference():
            mistake = relative_error(compute(), logits)
        assert 0.01 < noise < 0.2 < mistake
        assert is_rounding(2 * noise, model, compute, logits)
        assert not is_rounding(mistake, model, compute, logits)
        assert not is_rounding(float("nan"), model, compute, logits)


def test_adapters_are_merged_into_a_noisy_model(noisy):
    assert merges(noisy)


def test_float32_leaves_little_room(tiny_models):
    model = LlamaForCausalLM.from_pretrained(tiny_models["llama"])
    ids = ordinary_tokens(model)
    logits = model(input_ids=ids).logits
    assert is_rounding(5e-4, model, lambda: pytest.fail("it is computed in doubt only"), logits)
    assert not is_rounding(5e-3, model, lambda: model(input_ids=ids).logits, logits)
