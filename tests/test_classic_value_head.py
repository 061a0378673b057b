"""What TRL 0.11's own tests of the value head asked for, in words of our own, for the families they were asked of.

docs/dev/trl.md lists them all, with those that stand elsewhere.
"""

import pytest
import torch
from families import FAMILIES, build
from transformers import AutoModel, AutoModelForCausalLM, GenerationConfig

from rlhf import AutoModelForCausalLMWithValueHead

ASKED = ["GPT-2", "GPT-Neo", "GPT-J", "GPT-NeoX, Pythia", "CodeGen", "OPT", "BLOOM", "Llama"]
TOKEN_IDS = torch.arange(2, 12)[None]


@pytest.fixture(params=ASKED)
def language_model(request):
    return build(FAMILIES[request.param])


def same(one, other) -> bool:
    """Whether two models have the same tensors under the same names."""
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize("size", [None, "20KB"])
def test_transformers_reads_the_language_model_and_we_the_head_too(language_model, tmp_path, size):
    model = AutoModelForCausalLMWithValueHead.from_pretrained(language_model)
    model.save_pretrained(tmp_path, **{"max_shard_size": size} if size else {})
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (size is not None)
    assert same(AutoModelForCausalLM.from_pretrained(tmp_path), language_model)
    assert same(AutoModelForCausalLMWithValueHead.from_pretrained(tmp_path), model)


def test_a_head_of_its_own_a_forward_pass_and_generate(language_model):
    """One random number per token from every family, beside logits and a loss; `generate` takes a GenerationConfig."""
    model = AutoModelForCausalLMWithValueHead.from_pretrained(language_model)
    assert model.v_head.summary.weight.shape == (1, model.v_head.summary.in_features)
    assert model.v_head.summary.bias.item() != 0
    logits, loss, values = model(TOKEN_IDS)
    assert (logits.shape[:2], loss, values.shape) == ((1, 10), None, (1, 10))
    settings = GenerationConfig(max_new_tokens=9, min_new_tokens=9, pad_token_id=0)
    assert model.generate(TOKEN_IDS, generation_config=settings).shape == (1, 19)


def test_half_precision_is_asked_for_as_of_transformers(language_model, tmp_path):
    language_model.save_pretrained(tmp_path)
    model = AutoModelForCausalLMWithValueHead.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert model.pretrained_model.get_output_embeddings().weight.dtype == torch.bfloat16
    assert model(TOKEN_IDS)[2].isfinite().all()


def test_a_model_without_a_language_head_is_refused(tiny_models):
    with pytest.raises(ValueError, match="GPT2Model has no LM head"):
        AutoModelForCausalLMWithValueHead.from_pretrained(AutoModel.from_pretrained(tiny_models["gpt2"]))
