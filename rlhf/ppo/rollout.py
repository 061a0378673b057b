"""Experience and rollout: responses, and what is computed for them in a PPO update."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.policy.exact_kl import exact_kl as token_kl
from rlhf.policy.policy import Policy, PolicyOutput
from rlhf.sampling.responses import Responses


@dataclass(frozen=True, kw_only=True)
class Experience(Responses):
    """Responses, and what the networks computed for them before the update; each [B, T].

    Attributes:
        old_logprobs: Under the policy before the update, which is the one that sampled unless that is said to be stale.
        ref_logprobs: Under the reference.
        entropy: Of the policy before the update at each token, in nats.
        old_values: The critic's before the update; zeros without a critic.
        kl: From the reference, per token: an estimate or, with kl_estimator `exact`, over the whole vocabulary.
    """

    old_logprobs: Tensor
    ref_logprobs: Tensor
    entropy: Tensor
    old_values: Tensor
    kl: Tensor


@dataclass(frozen=True, kw_only=True)
class Rollout(Experience):
    """Experience with credit assigned: all that the clipped epochs and the report need; each [B, T] but `scores` [B].

    Attributes:
        scores: From the rewards, after normalization, clipping and the penalty for a missing EOS.
        rewards: Scores and KL penalty spread over the tokens.
        advantages: What the policy loss weighs each token with.
        returns: What the critic should have said.
    """

    scores: Tensor
    rewards: Tensor
    advantages: Tensor
    returns: Tensor


@torch.no_grad()
def policy_outputs(
    policy: Policy, responses: Responses, temperature: float, n_rows: int, *, with_values: bool, with_entropy: bool
) -> PolicyOutput:
    """`Policy.forward` over a whole batch without gradients, n_rows at a time: each result [B, T]."""
    order, parts = [], []
    for index, part in responses.split_by_length(n_rows):
        parts.append(
            policy(part.sequence_ids, part.prompt_lengths, part.response_mask, temperature, with_values, with_entropy)
        )
        order.append(index)
    width = responses.response_mask.shape[1]
    return PolicyOutput(*(in_order(order, list(column), width) for column in zip(*parts, strict=True)))


def exact_kl(policy: Policy, responses: Responses, temperature: float, n_rows: int) -> Tensor:
    """`rlhf.policy.exact_kl` over a whole batch, n_rows at a time: [B, T]."""
    order, parts = [], []
    for index, part in responses.split_by_length(n_rows):
        parts.append(token_kl(policy, part.sequence_ids, part.prompt_lengths, part.response_mask, temperature))
        order.append(index)
    return in_order(order, parts, responses.response_mask.shape[1])


def in_order(order: list[Tensor], parts: list[Tensor], width: int) -> Tensor:
    """Micro-batches [n, <= width] with the numbers of their rows, put together again: [B, width]."""
    padded = [torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in parts]
    return torch.cat(padded)[torch.cat(order).argsort()]
