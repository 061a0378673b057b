"""The decode loop against plain forward passes."""

import pytest
import torch

from rlhf.config import ModelConfig, SamplingConfig
from rlhf.models.load import load_causal_lm
from rlhf.models.tokenizer import load_tokenizer
from rlhf.sampling.batch import pad_left
from rlhf.sampling.decode import choose, sample, stop_strings

PROMPTS = [[3, 4, 5, 6, 7, 8, 9], [10, 11], [12, 13, 14, 15], [16]]


def greedy_without_padding(model, prompt, n_steps, eos):
    """The slow way: the whole sequence anew for every token, one row at a time."""
    ids = list(prompt)
    for _ in range(n_steps):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == eos:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_left_padded_batch_equals_unpadded_rows(tiny_models, architecture):
    model = load_causal_lm(ModelConfig(name_or_path=str(tiny_models[architecture])))
    free_running = [greedy_without_padding(model, prompt, 12, eos=-1) for prompt in PROMPTS]
    eos = free_running[1][3]  # a token that really comes up: rows end at different steps and are dropped
    ids, mask, ended, _ = sample(model, PROMPTS, SamplingConfig(max_new_tokens=12, temperature=0), eos)
    expected = [greedy_without_padding(model, prompt, 12, eos) for prompt in PROMPTS]
    assert [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)] == expected
    assert len({len(row) for row in expected}) > 1
    assert ids.shape[1] == max(len(row) for row in expected)
    assert (ids[~mask] == eos).all()
    assert ended.tolist() == [row[-1] == eos for row in expected]


def test_a_repeated_prompt_is_read_once(tiny_models, monkeypatch):
    """And every row goes on from its own prompt: greedily, samples of one prompt are equal, those of others are not."""
    model = load_causal_lm(ModelConfig(name_or_path=str(tiny_models["gpt2"])))
    sampling, counts = SamplingConfig(max_new_tokens=6, temperature=0), [2, 1, 3, 1]
    plain, *_ = sample(model, PROMPTS, sampling, eos_token_id=0)
    rows_read, forward = [], model.base_model.forward
    monkeypatch.setattr(
        model.base_model, "forward", lambda **given: rows_read.append(given["input_ids"].shape) or forward(**given)
    )
    repeated = [prompt for prompt, count in zip(PROMPTS, counts, strict=True) for _ in range(count)]
    ids, *_ = sample(model, repeated, sampling, eos_token_id=0)
    assert rows_read == [(4, 7), *[(7, 1)] * 5]
    assert torch.equal(ids, plain.repeat_interleave(torch.tensor(counts), dim=0))
    assert len(plain.unique(dim=0)) == len(PROMPTS)


def test_a_stop_string_ends_a_response_and_stays_part_of_it(tiny_models):
    folder = str(tiny_models["gpt2"])
    model, tokenizer = load_causal_lm(ModelConfig(name_or_path=folder)), load_tokenizer(folder)
    free = SamplingConfig(max_new_tokens=12, temperature=0)
    texts = [tokenizer.decode(row) for row in sample(model, PROMPTS, free, tokenizer.eos_token_id).response_ids]
    stop = texts[1][3:5]  # as text: it need not be a token, nor end where one ends
    stopping = SamplingConfig(max_new_tokens=12, temperature=0, stop=[stop])
    is_stop = stop_strings(stopping, tokenizer)
    ids, mask, ended, _ = sample(model, PROMPTS, stopping, tokenizer.eos_token_id, None, is_stop)
    for row, text in enumerate(texts):
        cut = tokenizer.decode(ids[row][mask[row]])
        assert bool(ended[row]) == (stop in text)
        assert text.startswith(cut)
        assert cut.count(stop) == int(stop in text)
    assert ended[1]
    assert not ended.all()
    assert mask[1].sum() < 12


def test_sampling_follows_the_distribution():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0]).expand(40000, 4)
    drawn, _ = choose(logits, SamplingConfig(temperature=0.5), torch.Generator().manual_seed(0))
    expected = (logits[0] / 0.5).softmax(-1)
    torch.testing.assert_close(drawn.bincount(minlength=4) / 40000, expected, rtol=0, atol=0.01)


def test_top_p_keeps_the_smallest_sufficient_set():
    probabilities = torch.tensor([0.1, 0.4, 0.3, 0.2])
    drawn, _ = choose(probabilities.log().expand(4000, 4), SamplingConfig(top_p=0.6), torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {1, 2}  # .4 alone is too little, .4 + .3 is enough


def test_same_seed_same_responses(tiny_models):
    model = load_causal_lm(ModelConfig(name_or_path=str(tiny_models["gpt2"])))
    sampling = SamplingConfig(max_new_tokens=10)
    runs = [sample(model, PROMPTS, sampling, 1, torch.Generator().manual_seed(seed))[0] for seed in (5, 5, 6)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_pad_left():
    ids, mask = pad_left([torch.tensor([5, 6, 7]), torch.tensor([8])], pad_id=0)
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[True, True, True], [False, False, True]]
