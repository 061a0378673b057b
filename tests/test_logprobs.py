"""Log-probabilities of tokens from hidden states in less than float32."""

import pytest
import torch
from torch import nn

from rlhf.models.head import Head
from rlhf.policy.logprobs import token_logprobs


@pytest.mark.parametrize("fast", [True, False])
def test_softmax_of_a_bfloat16_head_is_in_float32(fast):
    torch.manual_seed(0)
    head = nn.Linear(6, 50).to(torch.bfloat16).requires_grad_(False)
    features, ids = torch.randn(11, 6).to(torch.bfloat16), torch.randint(50, (11,))
    logprobs, entropy = token_logprobs(features, ids, Head(head), 0.7, True, fast)
    expected = (head(features).float() / 0.7).log_softmax(-1)
    assert logprobs.dtype == entropy.dtype == torch.float32
    torch.testing.assert_close(logprobs, expected[torch.arange(11), ids])
    torch.testing.assert_close(entropy, -(expected.exp() * expected).sum(-1))
