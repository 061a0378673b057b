"""What benchmarks/scale_on_paper.py counts: by hand, and on a model that is there."""

import io
from dataclasses import replace

import pytest
import scale_on_paper
import torch
from ppo_bench.model import random_model
from ppo_bench.settings import LLAMA, TINY
from scale_on_paper import MODELS, ROWS, Machine, adapters, cached_of_one_token, memory, update, weights

from rlhf.config import LoraConfig
from rlhf.data.parsing import Example
from rlhf.ppo.rollout import Experience

SMALL = replace(LLAMA, layers=3, hidden=64, heads=4, kv_heads=2, feed_forward=96, vocabulary=80)


def test_parameters_and_cache_are_those_of_a_real_model():
    import peft
    from transformers import DynamicCache

    model = random_model(SMALL).to(torch.bfloat16)
    assert sum(p.numel() for p in model.parameters() if p.ndim == 2) == weights(SMALL)  # the head is the embedding
    cache = DynamicCache()
    model(input_ids=torch.zeros(1, 1, dtype=torch.long), past_key_values=cache, use_cache=True)
    assert sum(x.nbytes for layer in cache.layers for x in (layer.keys, layer.values)) == cached_of_one_token(SMALL)
    lora = LoraConfig()
    assert lora.r == scale_on_paper.RANK
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=lora.r, target_modules=lora.target_modules))
    assert sum(p.numel() for p in wrapped.parameters() if p.requires_grad) == adapters(SMALL)


def test_an_update_by_hand():
    """One block of 4 x 4 weights throughout, prompts and responses of two tokens."""
    shape = replace(
        TINY, architecture="llama", layers=1, hidden=4, heads=2, kv_heads=2, feed_forward=4, vocabulary=10, epochs=4,
        prompt_tokens=2, response_tokens=2, micro_batch=4,
    )  # fmt: skip
    machine = Machine(
        flops=1e6, utilization=0.5, memory=1e3, block_seconds=0.1, nvlink=1e4, network=1e3, unpickling=1e3
    )
    assert weights(shape) == 7 * 16 + 40
    assert adapters(shape) == 16 * 7 * 8
    alone, node, cluster = (update(shape, n, machine) for n in (1, 8, 64))
    cached = ROWS * 3 * (2 * 2 * 4)  # three tokens halfway through the response: keys and values, two bytes each
    assert alone.decoding == pytest.approx(2 * (2 * 152 + cached) / 1e3)
    quick = replace(machine, memory=1e9)
    assert update(shape, 1, quick).decoding == pytest.approx(2 * 0.1)  # the loop itself is slower then
    assert (alone.gradients, alone.rollout, alone.gradient_bytes) == (0, 0, 0)
    steps = 4 * 2
    assert node.gradient_bytes == steps * 4 * 896
    assert node.gradients == pytest.approx(2 * 7 / 8 * steps * 4 * 896 / 1e4)
    assert cluster.gradients == pytest.approx(2 * 63 / 64 * steps * 4 * 896 / 1e3)
    row = 4 * (8 + 4) + 2 * 25
    assert node.rollout_bytes == 7 * 64 * row
    assert node.rollout == pytest.approx(7 * 64 * row / 1e3)
    assert node.seconds == pytest.approx(node.decoding + node.passes + node.gradients + node.rollout)
    # products: forward 2 * 112 a token, backward the same without the three products that make queries, keys, values;
    # attention 4 * 4 a pair of tokens, twice that in the backward pass
    prefill, whole = 64 * (2 * 224 + 3 * 16), 64 * (3 * 224 + 6 * 16)
    backward = 64 * (3 * (224 - 96) + 2 * 6 * 16)
    head = 64 * 2 * 2 * 40
    flops = (
        prefill + 2 * whole + 4 * (2 * whole + backward) + 2 * head + 4 * 2 * head
    )  # forward once more: checkpointing
    assert alone.passes == pytest.approx(flops / 5e5)
    base, trained, sampling = 2 * 152, 16 * 896, ROWS * 4 * 16 + ROWS * 10 * 14
    assert memory(shape, tied=True, merged=False) == base + trained + sampling
    assert memory(shape, tied=False, merged=True) == base + 2 * 40 + trained + 2 * 112 + sampling


def test_a_rollout_is_as_large_as_counted():
    """Pickled with tensors, as processes send it; within 10%, for the names and the frames of a pickle."""
    n, prompt, response = 64, 256, 256
    floats = {
        name: torch.zeros(n, response)
        for name in ("old_logprobs", "ref_logprobs", "entropy", "old_values", "kl", "sampler_logprobs")
    }
    experience = Experience(
        sequence_ids=torch.zeros(n, prompt + response, dtype=torch.long),
        prompt_lengths=torch.full((n,), prompt),
        response_mask=torch.ones(n, response, dtype=torch.bool),
        has_eos=torch.ones(n, dtype=torch.bool),
        texts=[str(row).zfill(4) * response for row in range(n)],
        examples=[Example(str(row).zfill(4) * prompt, None, {}, "rows") for row in range(n)],
        **floats,
    )
    buffer = io.BytesIO()
    torch.save(experience, buffer)
    shape = replace(MODELS["1B"], prompt_tokens=prompt, response_tokens=response)
    assert buffer.tell() == pytest.approx(update(shape, 2, Machine()).rollout_bytes, rel=0.1)


def test_the_published_sizes():
    """1.24, 3.21 and 8.03 billion parameters, by the model cards; norms are left out here."""
    sizes = [weights(shape) / 1e9 for shape in MODELS.values()]
    assert sizes == pytest.approx([1.24, 3.21, 8.03 - 4096 * 128256 / 1e9], abs=0.01)
