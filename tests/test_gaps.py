"""Tokens that the policy did not choose, such as a tool's answer: gaps in the response mask."""

from dataclasses import replace

import pytest
import torch
from gappy import GAPPY, IDS, LAST
from tiny_policy import make_policy

from rlhf.data.examples import TokenizedExample
from rlhf.data.parsing import Example
from rlhf.maths.tensors import zero_outside
from rlhf.models.tokenizer import load_tokenizer
from rlhf.ppo.rollout import exact_kl, policy_outputs
from rlhf.ppo.spans import span_rewards
from rlhf.rewards import Span
from rlhf.sampling.decode import Sampled
from rlhf.sampling.responses import Responses, collate_responses


@pytest.fixture
def tokenizer(tiny_models):
    return load_tokenizer(str(tiny_models["gpt2"]))


@pytest.fixture
def responses(tokenizer) -> Responses:
    example = Example(({"role": "user", "content": "x"},), None, {}, "test")
    prompts = [TokenizedExample(example, [10, 11, 12][: 1 + row % 3], None) for row in range(4)]
    return collate_responses(prompts, Sampled(IDS[:4], GAPPY[:4], torch.ones(4, dtype=torch.bool)), tokenizer)


def test_responses_keep_what_lies_in_a_gap(responses, tokenizer):
    """The policy reads it; only what comes after its last own token is left out."""
    for row, end in enumerate(LAST[:4]):
        start = int(responses.prompt_lengths[row])
        assert responses.response_ids(row) == IDS[row, :end].tolist()
        assert responses.sequence_ids[row, start : start + end].tolist() == IDS[row, :end].tolist()
        assert responses.texts[row] == tokenizer.decode(IDS[row, :end])
    assert responses.lengths.tolist() == [4, 4, 7, 1]
    assert responses.extents.tolist() == LAST[:4]
    cut = responses.rows(torch.tensor([3, 0]))
    assert cut.response_mask.shape == (2, 6)
    assert cut.response_ids(1) == IDS[0, :6].tolist()
    assert sorted(int(i) for index, _ in responses.split_by_length(3) for i in index) == [0, 1, 2, 3]


def test_log_probabilities_are_those_of_the_whole_sequence(tiny_models, responses):
    """The same numbers as without the gaps, at the tokens that were chosen; 0 in the gaps."""
    policy = make_policy(tiny_models["gpt2"])
    gappy = policy_outputs(policy, responses, 0.7, 2, with_values=True, with_entropy=True)
    whole = torch.arange(7) < responses.extents.unsqueeze(-1)
    dense = policy_outputs(policy, replace(responses, response_mask=whole), 0.7, 4, with_values=True, with_entropy=True)
    for ours, expected in zip(gappy, dense, strict=True):
        torch.testing.assert_close(ours, zero_outside(expected, responses.response_mask), rtol=0, atol=2e-5)


def test_the_exact_kl_is_that_of_the_whole_vocabulary(tiny_models, responses):
    policy = make_policy(tiny_models["gpt2"])
    kl = exact_kl(policy, responses, 0.7, 3)
    model = policy.wrapper.pretrained_model
    with torch.no_grad():
        ours = (model(responses.sequence_ids).logits / 0.7).double().log_softmax(-1)
        with model.disable_adapter():
            theirs = (model(responses.sequence_ids).logits / 0.7).double().log_softmax(-1)
    everywhere = (ours.exp() * (ours - theirs)).sum(-1)
    expected = torch.zeros(4, 7, dtype=torch.float64)
    for row, t in responses.response_mask.nonzero().tolist():
        expected[row, t] = everywhere[row, int(responses.prompt_lengths[row]) + t - 1]
    assert expected.max() > 0.01
    torch.testing.assert_close(kl.double(), expected, rtol=1e-3, atol=1e-5)


def test_a_span_is_found_by_its_place_in_the_whole_text(responses, tokenizer):
    """What a span pays for a tool's words has no token of the policy to go to, and lands on its last one."""
    text = responses.texts[0]
    pieces = tokenizer.batch_decode([[token] for token in IDS[0, :6].tolist()])
    start = len("".join(pieces[:4]))
    assert len(text) == len("".join(pieces))
    own, tool = Span(start, start + len(pieces[4]), 2.0), Span(len("".join(pieces[:2])), start, 3.0)
    rewards = span_rewards([[own, tool], [], [], []], responses, tokenizer)
    assert rewards[0].tolist() == [0, 0, 0, 0, 2, 3, 0]
    assert rewards[1:].abs().sum() == 0
