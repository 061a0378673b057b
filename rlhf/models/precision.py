"""`model.dtype: auto`, and a word where a precision is slow: not every processor has instructions for bfloat16.

Without them torch emulates its products: forward and backward of SmolLM2-135M took 27 times as long as in float32 on
two cores with AVX2 (docs/dev/benchmarks.md).
"""

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch

from rlhf.parallel.launch import rank

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
    """The config with bfloat16 or float32 in place of `model.dtype: auto`, whichever is fast on this machine.

    Says on standard error, once, that a bfloat16 which was asked for by name is slow.
    """
    plain: Any = config
    if plain.model is None or plain.model.dtype == "float32":
        return config
    fast = has_bfloat16()
    if plain.model.dtype == "auto":
        settled_config: Config = replace(plain, model=replace(plain.model, dtype="bfloat16" if fast else "float32"))
        return settled_config
    if not fast and rank() == 0:
        say_slow()
    return config


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
