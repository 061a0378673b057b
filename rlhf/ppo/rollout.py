"""Experience and rollout: responses, and what is learned about them on the way through a PPO update."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.policy.policy import Policy, PolicyOutput
from rlhf.sampling.responses import Responses


@dataclass(frozen=True, kw_only=True)
class Experience(Responses):
    """Responses, and what the networks said of them before the update; each [B, T].

    Attributes:
        old_logprobs: Under the policy that sampled.
        ref_logprobs: Under the reference.
        entropy: Of the sampling policy at each token, in nats.
        old_values: The critic's before the update; zeros without a critic.
    """

    old_logprobs: Tensor
    ref_logprobs: Tensor
    entropy: Tensor
    old_values: Tensor


@dataclass(frozen=True, kw_only=True)
class Rollout(Experience):
    """Experience with credit assigned: all that the clipped epochs and the report need; each [B, T] but `scores` [B].

    Attributes:
        scores: From the rewards, after normalization, clipping and the penalty for a missing EOS.
        kl: Per-token KL estimate.
        rewards: Scores and KL penalty spread over the tokens.
        advantages: What the policy loss weighs each token with.
        returns: What the critic should have said.
    """

    scores: Tensor
    kl: Tensor
    rewards: Tensor
    advantages: Tensor
    returns: Tensor


@torch.no_grad()
def policy_outputs(
    policy: Policy, responses: Responses, temperature: float, n_rows: int, *, with_values: bool, with_entropy: bool
) -> PolicyOutput:
    """`Policy.forward` over a whole batch without gradients, n_rows at a time: each result [B, T]."""
    parts, order = [], []
    for index, part in responses.split_by_length(n_rows):
        result = policy(
            part.sequence_ids, part.prompt_lengths, part.response_mask, temperature, with_values, with_entropy
        )
        to_full_width = (0, responses.response_mask.shape[1] - part.response_mask.shape[1])
        parts.append([torch.nn.functional.pad(x, to_full_width) for x in result])
        order.append(index)
    original_order = torch.cat(order).argsort()
    return PolicyOutput(*(torch.cat(column)[original_order] for column in zip(*parts, strict=True)))
