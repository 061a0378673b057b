"""PPO fine-tuning of language models: SFT, reward scoring and PPO on the Hugging Face stack.

The names that TRL 0.11 had (docs/how-to/migrate-from-trl.md) and the stages, each loaded when it is first used.
"""

import importlib
from typing import Any

from rlhf import moved

__version__ = "0.1.0"
_HOMES = {
    "AdaptiveKLController": "rlhf.classic.kl",
    "AutoModelForCausalLMWithValueHead": "rlhf.classic.model",
    "BestOfNSampler": "rlhf.classic.extras",
    "FixedKLController": "rlhf.classic.kl",
    "LengthSampler": "rlhf.classic.generate",
    "PPOConfig": "rlhf.classic.config",
    "PPOTrainer": "rlhf.classic.trainer",
    "create_reference_model": "rlhf.classic.reference",
    "respond_to_batch": "rlhf.classic.extras",
    "run_evaluate": "rlhf.stages.evaluate",
    "run_generate": "rlhf.stages.generate",
    "run_pipeline": "rlhf.stages.pipeline",
    "run_ppo": "rlhf.stages.ppo",
    "run_reward": "rlhf.stages.reward_model",
    "run_score": "rlhf.stages.score",
    "run_sft": "rlhf.stages.sft",
    "set_seed": "transformers",
}
_GONE = {
    "AutoModelForSeq2SeqLMWithValueHead": "rlhf has no AutoModelForSeq2SeqLMWithValueHead: its PPO is for decoder-only "
    "models. Take one of those (Qwen, Llama, SmolLM, GPT-2) with AutoModelForCausalLMWithValueHead, or stay with "
    "trl==0.11.4 for encoder-decoders such as FLAN-T5 (docs/how-to/migrate-from-trl.md)",
    "PreTrainedModelWrapper": "rlhf has no PreTrainedModelWrapper: its one model with a value head, with all "
    "methods, is AutoModelForCausalLMWithValueHead (docs/how-to/migrate-from-trl.md)",
    "TextEnvironment": "rlhf has no TextEnvironment: give `step` the tool's answers with 0 in response_masks "
    "(docs/how-to/migrate-from-trl.md), or run `rlhf ppo` with an environment (docs/how-to/multi-turn.md)",
}
"""Names of TRL 0.11 that are not here: what to do instead."""
__all__ = sorted(_HOMES)  # noqa: PLE0605

moved.install()


def __getattr__(name: str) -> Any:
    if name in _GONE:
        raise importlib.import_module("rlhf.errors").UserError(_GONE[name])
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
