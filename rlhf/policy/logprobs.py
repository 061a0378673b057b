"""From hidden states to log-probabilities of tokens, a block of logits at a time."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rlhf.fast.lm_head import LOGIT_ROWS, FrozenHead
from rlhf.maths.tensors import at_least_float32, entropy_from_logits, logprobs_from_logits
from rlhf.models.head import Head


def token_logprobs(
    features: Tensor, token_ids: Tensor, head: Head, temperature: float, with_entropy: bool, fast: bool = True
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of tokens and entropy of their distributions, softmax(head(features) / temperature).

    features [N, H], token_ids [N] -> [N] and [N], float32 or wider; entropy in nats, 0 where not asked for. Logits are
    never held for more than LOGIT_ROWS tokens: autograd computes them again for the backward pass, `fast` takes the
    gradient at once where the head is frozen and the entropy needs none.
    """
    needs_entropy_gradient = with_entropy and features.requires_grad and torch.is_grad_enabled()
    is_plain = head.is_linear and type(head.linear) is nn.Linear and not head.linear.weight.requires_grad
    if fast and is_plain and not needs_entropy_gradient and not torch.is_autocast_enabled(features.device.type):
        return FrozenHead.apply(features, token_ids, head.linear, temperature, with_entropy)
    blocks = [
        checkpoint(_score, some, ids, head, temperature, with_entropy, use_reentrant=False)
        for some, ids in zip(features.split(LOGIT_ROWS), token_ids.split(LOGIT_ROWS), strict=True)
    ]
    logprobs, entropy = (torch.cat(column) for column in zip(*blocks, strict=True))
    return logprobs, entropy


def _score(
    features: Tensor, token_ids: Tensor, head: Head, temperature: float, with_entropy: bool
) -> tuple[Tensor, Tensor]:
    logits = at_least_float32(head(features)) / temperature  # [n, V]
    entropy = entropy_from_logits(logits) if with_entropy else logits.new_zeros(len(logits))
    return logprobs_from_logits(logits, token_ids), entropy
