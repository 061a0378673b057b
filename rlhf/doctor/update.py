"""One real update with learning rate 0: everything runs, and nothing changes."""

import math
from collections.abc import Iterator

import torch

from rlhf.doctor.check import Check, failure, ok
from rlhf.doctor.trial import Trial
from rlhf.policy.policy import Policy


def check_update(trial: Trial) -> Iterator[Check]:
    """The first ratio is 1, a gradient arrives, and without a learning rate every weight stays what it is."""
    trainer = trial.trainer
    trainer.policy.start_values_at(0.0)  # a new critic sets its bias in the first update, as it should
    for group in trainer.epochs.optimizer.param_groups:
        group["peak_lr"] = 0.0
    before = fingerprints(trainer.policy)
    metrics = trainer.update().metrics
    changed = [name for name, value in fingerprints(trainer.policy).items() if value != before[name]]
    yield check_ratio(trial, metrics)
    yield check_gradient(metrics)
    yield check_unchanged(changed, len(before))


def check_ratio(trial: Trial, metrics: dict[str, float]) -> Check:
    """The update computes the probabilities that were recorded for the rollout."""
    scatter = (2 * metrics["policy/approx_kl"]) ** 0.5  # approx_kl is half the mean squared difference
    ratio = metrics["policy/ratio_mean"]
    found = f"{ratio:.6f} on average, logprobs differ by {scatter:.2g} nats (limit {trial.tolerance:.2g})"
    if scatter <= trial.tolerance:
        return ok("first ratio", found)
    return failure(
        "first ratio",
        found,
        "the same policy gives other probabilities in the update than in the rollout: look for dropout, or layers that "
        "behave differently in train mode",
    )


def check_gradient(metrics: dict[str, float]) -> Check:
    """The loss reaches the adapters."""
    norm = metrics["policy/grad_norm"]
    if not math.isfinite(norm):
        fix = "the loss or its gradient is not finite: look at the rewards, and try model.dtype float32"
        return failure("gradient", f"norm {norm} before clipping: every such step would be skipped", fix)
    if norm > 0:
        return ok("gradient", f"norm {norm:.2g} before clipping")
    fix = "no advantage differs from 0 (see the rewards), or the adapters are cut off from the loss"
    return failure("gradient", "norm 0: nothing would be learned", fix)


def check_unchanged(changed: list[str], n: int) -> Check:
    """With learning rate 0 all weights are bit for bit what they were."""
    if not changed:
        return ok("learning rate 0", f"all {n} tensors of the model are the same, bit for bit")
    return failure(
        "learning rate 0",
        f"{len(changed)} of {n} tensors changed, the first is {changed[0]}",
        "something besides the optimizer's step writes into the weights: merging adapters for sampling, weight decay, "
        "a callback",
    )


def fingerprints(policy: Policy) -> dict[str, int]:
    """For each weight a number that changes (but for rare coincidences) when a bit of it does."""
    return {name: fingerprint(tensor) for name, tensor in [*policy.named_parameters(), *policy.named_buffers()]}


def fingerprint(tensor: torch.Tensor) -> int:
    """Sum of the tensor's elements, their bits read as integers."""
    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return int(tensor.detach().contiguous().view(integers).sum(dtype=torch.int64))
