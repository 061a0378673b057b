"""Several seeds in one batch: independent random streams, and losses mapped over the seeds.

Seed s draws from a generator of its own, so that it sees the same numbers alone as beside nine others.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def generators(first: int, count: int) -> list[torch.Generator]:
    """One random stream per seed first, first + 1, ...; raises ValueError unless count >= 1."""
    if count < 1:
        raise ValueError(f"seeds is {count}; it must be at least 1")
    return [torch.Generator().manual_seed(first + s) for s in range(count)]


def uniform(streams: Sequence[torch.Generator], *shape: int) -> Tensor:
    """Uniform draws in [0, 1), [seeds, *shape]."""
    return torch.stack([torch.rand(shape, generator=stream) for stream in streams])


def normal(streams: Sequence[torch.Generator], *shape: int) -> Tensor:
    """Standard normal draws, [seeds, *shape]."""
    return torch.stack([torch.randn(shape, generator=stream) for stream in streams])


def choose(probabilities: Tensor, u: Tensor) -> Tensor:
    """Inverse-CDF sampling: probabilities [..., A], uniform u [..., n] -> actions [..., n]."""
    edges = probabilities.cumsum(-1)[..., :-1].contiguous()
    return torch.searchsorted(edges, u.contiguous(), right=True)


def per_run(function: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
    """The function of one run's tensors as a function of all runs': every tensor gains a first dimension, runs.

    Statistics (a batch mean, a whitening) then stay within a run, as they would if it were alone.
    """
    return torch.vmap(lambda *tensors: function(*tensors, **settings))
