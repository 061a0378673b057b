"""`model.dtype: auto`, and a word where a precision is slow: not every processor has instructions for bfloat16.

Without them torch emulates its products: forward and backward of SmolLM2-135M took 27 times as long as in float32 on
two cores with AVX2 (docs/dev/benchmarks.md).
"""

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
import yaml

from rlhf.config import DType, ModelConfig
from rlhf.parallel.launch import rank
from rlhf.runs.folder import CONFIG_FILE, has_begun

Parameters = ParamSpec("Parameters")
Config = TypeVar("Config")
Result = TypeVar("Result")

INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""For bfloat16, of x86 and Arm, as `torch.cpu.get_capabilities` calls them. Apple's GPUs have it where its cores do."""


def chooses_dtype(
    stage: Callable[Concatenate[Config, Parameters], Result],
) -> Callable[Concatenate[Config, Parameters], Result]:
    """A stage that gets its config, the first argument, as `settled` returns it."""

    @functools.wraps(stage)
    def run(config: Config, *arguments: Parameters.args, **named: Parameters.kwargs) -> Result:
        return stage(settled(config), *arguments, **named)

    return run


def settled(config: Config) -> Config:
    """The config with bfloat16 or float32 in place of `model.dtype: auto`.

    Whichever its run was begun with, where its folder holds one, else which of them is fast on this machine. Says on
    standard error, once, that bfloat16 is slow.
    """
    plain: Any = config
    if plain.model is None:
        return config
    before = begun_with(getattr(plain, "output_dir", None), "model")
    model = settled_model(plain.model, before)
    settled_config: Config = config if model is plain.model else replace(plain, model=model)
    return settled_config


def settled_model(model: ModelConfig, before: DType | None = None) -> ModelConfig:
    """The same for a model alone; `before` is what its run was begun with."""
    fast = model.dtype == "float32" or has_bfloat16()
    if model.dtype == "auto":
        model = replace(model, dtype=before or ("bfloat16" if fast else "float32"))
    if model.dtype == "bfloat16" and not fast and rank() == 0:
        say_slow()
    return model


def begun_with(output_dir: str | None, *keys: str) -> DType | None:
    """The dtype of the model below these keys in the config of the run that is there; None where none has begun."""
    folder = Path(output_dir or "")
    try:
        if output_dir is None or not has_begun(folder):
            return None
        text = (folder / CONFIG_FILE).read_text(encoding="utf-8")
        model = functools.reduce(lambda section, key: section[key], keys, yaml.safe_load(text))
        return model["dtype"] if model["dtype"] in ("bfloat16", "float32") else None
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):  # opening the run says what is wrong with it
        return None


def torch_dtype(name: DType) -> torch.dtype:
    """The type of torch that a precision means here."""
    dtype: torch.dtype = getattr(torch, settled_model(ModelConfig(dtype=name)).dtype)
    return dtype


def has_bfloat16() -> bool:
    """Whether the device that models are put on multiplies bfloat16 with instructions of its own."""
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    if torch.cuda.is_available() and not on_cpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in INSTRUCTIONS)


@functools.cache
def say_slow() -> None:
    print(
        "model.dtype is bfloat16, but this processor has no instructions for it (AVX512-BF16, AMX, Arm's BF16): "
        "training takes many times as long as in float32; auto takes what is fast",
        file=sys.stderr,
        flush=True,
    )
