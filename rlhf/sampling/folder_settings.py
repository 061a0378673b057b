"""What a model's generation_config.json wants of sampling, and is not followed: PPO has to sample what it optimizes."""

import functools
import sys
from typing import TYPE_CHECKING, Any

from rlhf.config import SamplingConfig
from rlhf.parallel.launch import rank

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ALTERS: dict[str, tuple[Any, ...]] = {
    "min_p": (0,), "top_h": (), "typical_p": (1,), "epsilon_cutoff": (0,), "eta_cutoff": (0,),
    "repetition_penalty": (1,), "encoder_repetition_penalty": (1,), "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,), "exponential_decay_length_penalty": (), "bad_words_ids": ([],),
    "sequence_bias": ([], {}), "suppress_tokens": ([],), "begin_suppress_tokens": ([],), "forced_bos_token_id": (),
    "forced_eos_token_id": (), "guidance_scale": (1,), "watermarking_config": (), "penalty_alpha": (0,),
    "dola_layers": (), "min_new_tokens": (0,), "min_length": (0,), "num_beams": (1,),
}  # fmt: skip
"""Settings of `generate` that change what is sampled, and the values besides None that change nothing."""


def say_what_is_not_followed(model: "PreTrainedModel", sampling: SamplingConfig) -> None:
    """One line on stderr, once, about settings of the model's folder that sampling does not go by."""
    settings = ", ".join(not_followed(model, sampling))
    if settings and rank() == 0:
        _say(f"note: generation_config.json of the model has {settings}; not followed, `sampling` alone counts")


def not_followed(model: "PreTrainedModel", sampling: SamplingConfig) -> list[str]:
    """Such settings, as name=value."""
    config = getattr(model, "generation_config", None)
    neutral = ALTERS | {
        "temperature": (sampling.temperature,),
        "top_p": (sampling.top_p,),
        "top_k": (0,),
        "stop_strings": (sampling.stop,),
    }
    found = {name: getattr(config, name, None) for name in neutral}
    return [f"{name}={value}" for name, value in found.items() if value is not None and value not in neutral[name]]


@functools.cache
def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
