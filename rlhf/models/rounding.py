"""How far apart rounding alone takes two ways to compute the same logits."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OF_HEAD = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
"""Relative error of logits that were scaled and capped in this type, with room."""
NOISES = 3
"""An error of as many times what one rounding does to the logits is none."""


def rounding_of_head(logits: Tensor) -> float:
    """Relative error that the order of additions in the head alone may make."""
    return OF_HEAD.get(logits.dtype, 1e-5)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference of two sets of logits [..., V], over that of their scatter.

    A constant does not count: logits that differ by one are the same distribution.
    """
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()  # MPS has no float64
    difference = found - expected
    scatter = (expected - expected.mean(-1, keepdim=True)).norm()
    error = (difference - difference.mean(-1, keepdim=True)).norm()
    return float(error / scatter.clamp(min=1e-30))


@contextlib.contextmanager
def jolted(model: "PreTrainedModel") -> Iterator[None]:
    """Within this context every number that enters the model is off by up to one rounding.

    The embeddings are multiplied by 1 + eps u, u uniform in [-1, 1] and eps that of their type. On models of 2 to 30
    layers this came within a fifth of what another order of summation does, and on one of 30 within a half of what
    adapters do that are merged into bfloat16 weights. No comparison of two shapes of a batch shows that reliably: often
    they run the same kernels.
    """
    embeddings = model.get_input_embeddings()
    generator = torch.Generator(device=embeddings.weight.device).manual_seed(0)

    def jolt(module: torch.nn.Module, inputs: object, output: Tensor) -> Tensor:
        u = 2 * torch.rand(output.shape, generator=generator, device=output.device) - 1
        return (output.float() * (1 + torch.finfo(output.dtype).eps * u)).to(output.dtype)

    hook = embeddings.register_forward_hook(jolt)
    try:
        yield
    finally:
        hook.remove()


def is_rounding(error: float, model: "PreTrainedModel", compute: Callable[[], Tensor], logits: Tensor) -> bool:
    """Whether a relative error between two ways to compute logits is no more than the order of additions makes.

    A mistake in positions, masks or adapters makes .1 and more, and rounding to bfloat16 .03 to .11 in a model of 30
    layers. So what is larger is compared with what one rounding does to this model.

    Args:
        error: Between the two ways.
        model: The model.
        compute: Computes `logits` anew; called in doubt only.
        logits: One of the two, or more of the same.
    """
    if error < (1e-3 if logits.dtype in (torch.float32, torch.float64) else 0.1):
        return True
    with jolted(model):
        noise = relative_error(compute(), logits)
    return error < NOISES * noise
