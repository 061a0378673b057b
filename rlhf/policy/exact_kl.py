"""The KL to the reference, over the whole vocabulary."""

import torch
from torch import Tensor

from rlhf.fast.lm_head import LOGIT_ROWS
from rlhf.maths.kl import kl_from_logits
from rlhf.models.head import head_of
from rlhf.policy.policy import Policy


@torch.no_grad()
def exact_kl(
    policy: Policy, sequence_ids: Tensor, prompt_lengths: Tensor, response_mask: Tensor, temperature: float = 1.0
) -> Tensor:
    """KL(policy || reference) at each response token, in nats: [B, T], 0 outside.

    Arguments as for `Policy.forward`. The logits of LOGIT_ROWS tokens are held at once, not those of the batch.
    """
    rows, steps = response_mask.nonzero(as_tuple=True)
    before = prompt_lengths[rows] + steps - 1
    features = policy.features(sequence_ids)[rows, before].split(LOGIT_ROWS)
    with policy.reference():
        ref_features = policy.features(sequence_ids)[rows, before].split(LOGIT_ROWS)
    blocks = []
    for ours, theirs in zip(features, ref_features, strict=True):
        logits = head_of(policy.reader)(ours) / temperature
        with policy.reference():  # adapters may sit on the head too
            ref_logits = head_of(policy.reader)(theirs) / temperature
        blocks.append(kl_from_logits(logits, ref_logits))
    kl = torch.cat(blocks)
    return kl.new_zeros(response_mask.shape).index_put((rows, steps), kl)
