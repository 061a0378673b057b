"""What would lower the memory of a run: only settings that do so by the estimate itself."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any

from rlhf.config import PPOConfig
from rlhf.doctor.footprint import Footprint, footprint, saved_by_one_row
from rlhf.errors import UserError
from rlhf.models.device_memory import amount
from rlhf.models.precision import has_bfloat16
from rlhf.policy.policy import Policy
from rlhf.sampling.sizes import per_process

WORTH_IT = 0.01
"""Share of the peak that a remedy has to save."""
SMALLER_MODEL = "a smaller model"


def of_weights(config: PPOConfig) -> str:
    """What makes the weights themselves smaller."""
    halved = ["model.dtype bfloat16"] if can_be_halved(config) else []
    return " or ".join([*halved, SMALLER_MODEL])


def of_peak(estimate: Footprint, config: PPOConfig, policy: Policy, prompt_tokens: int) -> str:
    """Settings of which each by itself would lower the estimated peak, with the peak that it would leave."""
    saved = cache(partial(saved_by_one_row, policy.language_model))
    found = []
    for text, changed in candidates(config):
        with contextlib.suppress(UserError):  # of a setting that this model cannot take: a branch of its only block
            after = replace(footprint(changed, policy, prompt_tokens, saved), process=estimate.process).peak
            if after < (1 - WORTH_IT) * estimate.peak:
                found.append(f"{text} (about {amount(after)})")
    return ", or ".join([*found, SMALLER_MODEL])


def candidates(config: PPOConfig) -> Iterator[tuple[str, PPOConfig]]:
    """Settings that could matter, in words and in a config; those that cost nothing but time come first."""
    rows = min(config.micro_batch_size, per_process(config, config.mini_batch_size))
    if rows > 1:
        yield f"micro_batch_size {rows // 2}", replace(config, micro_batch_size=rows // 2)
        yield "micro_batch_size 1", replace(config, micro_batch_size=1)
    decoded = min(per_process(config, config.batch_size), config.rollout_batch_size or config.batch_size)
    if decoded > 1:
        yield f"rollout_batch_size {decoded // 2}", replace(config, rollout_batch_size=decoded // 2)
    if config.sampling.merge_adapters != "never" and config.generation.engine != "vllm":
        yield "sampling.merge_adapters never", _with_sampling(config, merge_adapters="never")
    if config.inspect.prompts:
        yield "inspect.prompts 0", replace(config, inspect=replace(config.inspect, prompts=0))
    if not config.model.gradient_checkpointing:
        yield "model.gradient_checkpointing true", _with_model(config, gradient_checkpointing=True)
    if config.uses_critic and config.critic == "adapter":
        yield "critic branch", replace(config, critic="branch")
    if config.uses_critic and config.critic in ("adapter", "branch", "separate"):
        yield "critic detached", replace(config, critic="detached", critic_layers=None)
    if can_be_halved(config):
        yield "model.dtype bfloat16", _with_model(config, dtype="bfloat16")
    shorter = config.sampling.max_new_tokens // 2
    if shorter:
        yield f"sampling.max_new_tokens {shorter}", _with_sampling(config, max_new_tokens=shorter)


def can_be_halved(config: PPOConfig) -> bool:
    """Whether the base could be stored in 16 bits, and this machine would not take many times as long."""
    is_whole = config.model.dtype == "float32" and config.model.quantization is None
    return is_whole and config.lora is not None and has_bfloat16()


def _with_model(config: PPOConfig, **changes: Any) -> PPOConfig:
    return replace(config, model=replace(config.model, **changes))


def _with_sampling(config: PPOConfig, **changes: Any) -> PPOConfig:
    return replace(config, sampling=replace(config.sampling, **changes))
