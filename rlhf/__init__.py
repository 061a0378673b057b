"""PPO fine-tuning of language models: SFT, reward scoring and PPO on the Hugging Face stack.

The names that TRL 0.11 had are here, each loaded when it is first used: docs/from-trl.md.
"""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = [
    "AutoModelForCausalLMWithValueHead",
    "LengthSampler",
    "PPOConfig",
    "PPOTrainer",
    "create_reference_model",
]

_HOMES = {
    "AutoModelForCausalLMWithValueHead": "rlhf.classic.value_head",
    "LengthSampler": "rlhf.classic.generation",
    "PPOConfig": "rlhf.classic.config",
    "PPOTrainer": "rlhf.classic.trainer",
    "create_reference_model": "rlhf.classic.value_head",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
