"""Responses, micro-batches and process rewards."""

import pytest
import torch

from rlhf.config import LoraConfig, ModelConfig, SamplingConfig
from rlhf.data.examples import TokenizedExample
from rlhf.data.parsing import Example
from rlhf.models.load import load_causal_lm
from rlhf.models.tokenizer import load_tokenizer
from rlhf.parallel.ranks import Ranks
from rlhf.policy.policy import Policy
from rlhf.ppo.rollout import policy_outputs
from rlhf.ppo.spans import span_rewards, token_ends
from rlhf.rewards import Span
from rlhf.sampling.decode import Sampled
from rlhf.sampling.responses import Responses, collate_responses, sample_responses


def prompt(*ids: int) -> TokenizedExample:
    example = Example(({"role": "user", "content": str(ids)},), None, {}, "test")
    return TokenizedExample(example, list(ids), None)


@pytest.fixture(scope="module")
def tokenizer(tiny_models):
    return load_tokenizer(str(tiny_models["gpt2"]))


@pytest.fixture(scope="module")
def responses(tokenizer) -> Responses:
    """Prompts of 3, 1, 2 tokens with responses of 2 (EOS), 4 (cut off) and 1 (EOS) tokens."""
    eos = tokenizer.eos_token_id
    ids = torch.tensor([[20, eos, eos, eos], [21, 22, 23, 24], [eos, eos, eos, eos]])
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    ended = torch.tensor([True, False, True])
    return collate_responses([prompt(10, 11, 12), prompt(13), prompt(14, 15)], Sampled(ids, mask, ended), tokenizer)


def test_join_leaves_no_gap(responses, tokenizer):
    eos = tokenizer.eos_token_id
    assert responses.sequence_ids.tolist() == [[10, 11, 12, 20, eos], [13, 21, 22, 23, 24], [14, 15, eos, eos, eos]]
    assert responses.prompt_lengths.tolist() == [3, 1, 2]
    assert responses.has_eos.tolist() == [True, False, True]
    assert [responses.response_ids(row) for row in range(3)] == [[20, eos], [21, 22, 23, 24], [eos]]
    assert responses.texts[2] == ""


def test_rows_are_cut_to_the_longest(responses):
    part = responses.rows(torch.tensor([2, 0]))
    assert part.sequence_ids.shape == (2, 5)
    assert part.response_mask.tolist() == [[True, False], [True, True]]
    assert part.texts == [responses.texts[2], responses.texts[0]]
    assert responses.rows(torch.tensor([2])).sequence_ids.shape == (1, 3)


def test_split_by_length_gives_every_row_once(responses):
    parts = list(responses.split_by_length(2))
    assert [index.tolist() for index, _ in parts] == [[2, 0], [1]]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_ranks_share_every_row_once_and_run_the_same_number_of_passes(responses, count):
    shares = [list(responses.split_by_length(1, Ranks(index, count))) for index in range(count)]
    assert len({len(share) for share in shares}) == 1
    rows = [int(index) for share in shares for index, part in share if part.response_mask.any()]
    assert sorted(rows) == [0, 1, 2]
    assert sum(int(part.lengths.sum()) for share in shares for _, part in share) == 2 + 4 + 1


def test_concatenation_pads_to_the_widest_and_undoes_a_split(responses):
    parts = [part for _, part in responses.split_by_length(2)]  # rows 2 and 0, then row 1
    whole = Responses.concatenate(parts)
    for name, value in vars(responses.rows(torch.tensor([2, 0, 1]))).items():
        joined = getattr(whole, name)
        if name == "sequence_ids":  # what lies behind the response is filler
            assert [whole.response_ids(row) for row in range(3)] == [responses.response_ids(row) for row in (2, 0, 1)]
        elif isinstance(value, torch.Tensor):
            assert torch.equal(joined, value)
        else:
            assert joined == value


def test_evaluation_in_parts_equals_evaluation_at_once(tiny_models, tokenizer):
    policy = Policy.with_lora(
        load_causal_lm(ModelConfig(name_or_path=str(tiny_models["gpt2"]))), LoraConfig(r=2), "adapter"
    )
    policy.start_values_at(0.5)
    prompts = [prompt(*range(5, 5 + n)) for n in (4, 1, 7, 2, 3)]
    sampled = sample_responses(
        policy, tokenizer, prompts, SamplingConfig(max_new_tokens=9), torch.Generator().manual_seed(0)
    )
    at_once = policy_outputs(policy, sampled, 1.0, 5, with_values=True, with_entropy=True)
    in_parts = policy_outputs(policy, sampled, 1.0, 2, with_values=True, with_entropy=True)
    for whole, parts in zip(at_once, in_parts, strict=True):
        torch.testing.assert_close(whole, parts)
    assert (at_once.logprobs[sampled.response_mask] < 0).all()


def test_spans_are_divided_among_the_tokens_that_cover_them(tokenizer):
    """One token per character, so that the shares follow by hand."""
    ids = tokenizer.convert_tokens_to_ids(list("abcdefgh"))
    mask = torch.ones(1, 8, dtype=torch.bool)
    sampled = collate_responses([prompt(9)], Sampled(torch.tensor([ids]), mask, torch.tensor([False])), tokenizer)
    assert sampled.texts == ["abcdefgh"]
    rewards = span_rewards([[Span(2, 5, -0.6), Span(4, 6, 1.0), Span(7, 8, 0.25), Span(0, 1, 2.0)]], sampled, tokenizer)
    # -0.6 on c, d, e; 1.0 on e, f; 0.25 on h; 2.0 on a
    expected = torch.tensor([[2.0, 0.0, -0.2, -0.2, -0.2 + 0.5, 0.5, 0.0, 0.25]])
    torch.testing.assert_close(rewards, expected)


def test_spans_land_on_every_token_they_touch(tokenizer):
    """Against a slow reference: the characters of a token are those by which it lengthens the decoded prefix."""
    text = "export default function Save"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    mask = torch.ones(1, len(ids), dtype=torch.bool)
    sampled = collate_responses([prompt(9)], Sampled(torch.tensor([ids]), mask, torch.tensor([False])), tokenizer)
    start, end = text.index("fault"), text.index("unction")  # starts and ends within a word
    touched = [
        bool(set(range(len(tokenizer.decode(ids[:t])), len(tokenizer.decode(ids[: t + 1])))) & set(range(start, end)))
        for t in range(len(ids))
    ]
    assert 2 <= sum(touched) < len(ids)
    rewards = span_rewards([[Span(start, end, -0.6)]], sampled, tokenizer)[0]
    torch.testing.assert_close(rewards, -0.6 / sum(touched) * torch.tensor(touched).float())


def test_span_behind_the_text_lands_on_the_last_token(responses, tokenizer):
    rewards = span_rewards([[], [Span(500, 501, -1.0)], []], responses, tokenizer)
    assert rewards.tolist() == [[0, 0, 0, 0], [0, 0, 0, -1.0], [0, 0, 0, 0]]


def test_characters_of_several_tokens_are_placed_by_prefix(tokenizer):
    text = 'const a = "日本語";'  # three bytes a character, more than one token each in a small vocabulary
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ends = token_ends(ids, tokenizer)
    assert ends == sorted(ends)
    assert ends[-1] == len(text)


@pytest.mark.parametrize("text", ["const a;", 'const a = "日本語";'])  # decoded token by token, and by prefix
def test_an_end_of_sequence_has_no_extent(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ends = token_ends([*ids, tokenizer.eos_token_id], tokenizer)
    assert ends == [*token_ends(ids, tokenizer), len(text)]
