"""Identities that hold before the first update if model, sampler and reference are wired up rightly."""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from rlhf.data.examples import TokenizedExample
from rlhf.doctor.check import Check, failure, ok
from rlhf.doctor.trial import Trial
from rlhf.maths.tensors import logprobs_from_logits
from rlhf.policy.merged import decoding
from rlhf.sampling.decode import sample
from rlhf.sampling.responses import Responses, collate_responses

DECODED_ROWS, DECODED_TOKENS = 8, 24
SURPRISE_LIMIT = 5.0
KL_LIMIT = 1e-3
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
        worst = max(worst, float((logprobs - trial.old.logprobs[row, : logprobs.shape[1]]).abs().max()))
    return compared(
        "padding invariance",
        worst,
        trial.tolerance,
        "logprobs of a sequence alone, and in a padded batch,",
        "the model looks at what stands after a token; PPO relies on causal attention, so it cannot train this one",
    )


def check_decoding(trial: Trial) -> Check:
    """The decode loop, with its cache and left padding, computes the probabilities that the update computes."""
    ordered = sorted(trial.prompts, key=lambda prompt: len(prompt.prompt_ids))
    spread = [ordered[i * (len(ordered) - 1) // (DECODED_ROWS - 1)] for i in range(DECODED_ROWS)]  # short to long
    decoded, responses = decode(trial, spread)
    forward = trial.trainer.forward(responses, with_values=False, with_entropy=False).logprobs
    return compared(
        "decoding",
        float((decoded - forward)[responses.response_mask].abs().max()),
        trial.tolerance,
        "logprobs in the decode loop and in the update",
        "the model's cache or its positions do not work with left padding; use an architecture that supports both",
    )


def decode(trial: Trial, prompts: list[TokenizedExample]) -> tuple[Tensor, Responses]:
    """Sample a few tokens: their log-probabilities as the decode loop saw them [B, T], and the responses."""
    trainer, sampling = trial.trainer, trial.config.sampling
    short = replace(sampling, max_new_tokens=min(DECODED_TOKENS, sampling.max_new_tokens), stop=[])
    model, eos = trainer.policy.language_model, trainer.tokenizer.eos_token_id
    steps: list[Tensor] = []
    hook = model.get_output_embeddings().register_forward_hook(lambda *call: steps.append(call[-1].float()))
    try:
        with decoding(trainer.policy, len(prompts)):
            sampled = sample(model, [prompt.prompt_ids for prompt in prompts], short, eos, trainer.generator)
    finally:
        hook.remove()
    lengths = sampled.response_mask.sum(-1)
    running = torch.arange(len(prompts), device=lengths.device)
    logprobs = torch.zeros_like(sampled.response_ids, dtype=torch.float32)
    for t, logits in enumerate(steps):
        if len(logits) < len(running):  # the loop drops all finished rows at once, and keeps the order
            running = running[lengths[running] > t]
        logprobs[running, t] = logprobs_from_logits(logits / sampling.temperature, sampled.response_ids[running, t])
    return logprobs, collate_responses(prompts, sampled, trainer.tokenizer)


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


def compared(name: str, worst: float, tolerance: float, what: str, fix: str) -> Check:
    """The verdict on a difference that should be rounding."""
    found = f"{what} differ by {worst:.2g} nats at most (limit {tolerance:g})"
    return ok(name, found) if worst <= tolerance and math.isfinite(worst) else failure(name, found, fix)
