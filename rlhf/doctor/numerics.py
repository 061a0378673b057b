"""Identities that hold before the first update if model, sampler and reference are wired up rightly."""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch

from rlhf.doctor.check import Check, failure, ok
from rlhf.doctor.trial import Trial, worst_row
from rlhf.ppo.start import KL_LIMIT
from rlhf.sampling.responses import sample_responses

DECODED_ROWS, DECODED_TOKENS = 8, 24
SURPRISE_LIMIT = 5.0
STIR = 0.02


def check_padding_invariance(trial: Trial) -> Check:
    """A token's log-probability does not depend on what follows, nor on the other rows of a batch."""
    responses, rows = trial.responses, torch.arange(len(trial.responses))[:2]
    half = responses.response_mask.cumsum(-1) <= ((responses.lengths + 1) // 2).unsqueeze(-1)
    halves = replace(responses, response_mask=responses.response_mask & half)
    worst = 0.0
    for row in rows.split(1):
        alone = halves.rows(row.to(half.device))
        logprobs = trial.trainer.forward(alone, with_values=False, with_entropy=False).logprobs
        worst = max(worst, worst_row(logprobs - trial.old.logprobs[row, : logprobs.shape[1]], alone.response_mask))
    return compared(
        "padding invariance",
        worst,
        trial,
        "logprobs of a sequence alone, and in a padded batch,",
        "the model looks at what stands after a token; PPO relies on causal attention, so it cannot train this one",
    )


def check_decoding(trial: Trial) -> Check:
    """The decode loop, with its cache and left padding, computes the probabilities that the update computes."""
    trainer, sampling = trial.trainer, trial.config.sampling
    ordered = sorted(trial.prompts, key=lambda prompt: len(prompt.prompt_ids))
    spread = [ordered[i * (len(ordered) - 1) // (DECODED_ROWS - 1)] for i in range(DECODED_ROWS)]  # short to long
    short = replace(sampling, max_new_tokens=min(DECODED_TOKENS, sampling.max_new_tokens), stop=[])
    responses = sample_responses(trainer.policy, trainer.tokenizer, spread, short, trainer.generator)
    assert responses.sampler_logprobs is not None
    forward = trainer.forward(responses, with_values=False, with_entropy=False).logprobs
    return compared(
        "decoding",
        worst_row(responses.sampler_logprobs - forward, responses.response_mask),
        trial,
        "logprobs in the decode loop and in the update",
        "the model's cache or its positions do not work with left padding; use an architecture that supports both",
    )


def check_sampled_distribution(trial: Trial) -> Check:
    """Responses are as probable as samples of the distribution that is optimized have to be.

    The log-probability of a sampled token is -entropy on average, so that z = sum d / sqrt(sum d^2) with
    d = logprob + entropy is about normal: another temperature, or a cut distribution, shows as a large z.
    """
    mask = trial.responses.response_mask
    difference = (trial.old.logprobs + trial.old.entropy)[mask]
    z = float(difference.sum() / difference.square().sum().sqrt().clamp(min=1e-12))
    found = (
        f"sampled tokens have logprob {float(trial.old.logprobs[mask].mean()):.3f} on average, expected "
        f"{-float(trial.old.entropy[mask].mean()):.3f}: {abs(z):.1f} standard errors apart (limit {SURPRISE_LIMIT:g})"
    )
    if abs(z) <= SURPRISE_LIMIT:
        return ok("sampled distribution", found)
    direction = "sharper" if z > 0 else "flatter"
    return failure(
        "sampled distribution",
        found,
        f"responses come from a {direction} distribution than the one that is optimized: sample with the same "
        "temperature, the same weights, and without top_p, top_k or other logits processors",
    )


def check_kl_at_start(trial: Trial) -> Check:
    """The policy starts as the reference."""
    kl = (trial.old.logprobs - trial.ref.logprobs).sum(-1)
    worst = float(kl.abs().max())
    found = f"at most {worst:.2g} nats per response (limit {KL_LIMIT:g})"
    if worst <= KL_LIMIT:
        return ok("KL at the start", found)
    return failure(
        "KL at the start",
        found,
        "the adapters are not zero at the start, or the reference is another model than the base; merge adapters into "
        "the base first",
    )


def check_reference(trial: Trial) -> Iterator[Check]:
    """The reference stays what it is, bit for bit, while the adapters change; and the policy does change with them."""
    policy = trial.trainer.policy
    parameters = policy.policy_parameters()
    originals = [parameter.detach().clone() for parameter in parameters]
    generator = torch.Generator(device=policy.device).manual_seed(0)
    with torch.no_grad():
        for parameter in parameters:
            noise = torch.randn(parameter.shape, generator=generator, device=parameter.device, dtype=parameter.dtype)
            parameter.add_(STIR * noise)
        reference = trial.reference_logprobs()
        stirred = trial.trainer.forward(trial.responses, with_values=False, with_entropy=False).logprobs
        for parameter, original in zip(parameters, originals, strict=True):
            parameter.copy_(original)
    moved = float((reference - trial.ref.logprobs).abs().max())
    found = f"moves by {moved:.2g} nats when the adapters are changed"
    fix = "the reference reads the adapters that are trained; nothing would hold the policy back"
    yield ok("reference", f"{found}: bit for bit the base") if moved == 0 else failure("reference", found, fix)
    effect = float((stirred - trial.old.logprobs).abs().max())
    found = f"changing them moves the policy by {effect:.2g} nats"
    fix = "lora.target_modules matches no layer that matters; all-linear is the default"
    yield ok("adapters", found) if effect > 0 else failure("adapters", found, fix)


def compared(name: str, worst: float, trial: Trial, what: str, fix: str) -> Check:
    """The verdict on a difference that should be rounding."""
    found = (
        f"{what} differ by {worst:.2g} nats per token in the worst response; one rounding makes {trial.rounding:.2g} "
        f"(limit {trial.tolerance:.2g})"
    )
    return ok(name, found) if worst <= trial.tolerance and math.isfinite(worst) else failure(name, found, fix)
