"""Decoding with weights in the order in which the CPU's matrix kernels read them.

A decoding step multiplies a few rows with every weight of the model. The library copies a plain weight into blocks
first, again for every token; here that is done once per rollout (by oneDNN, as torch.compile does when it freezes).
"""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from rlhf.models import private_names

Layer = tuple[nn.Module, Tensor, Tensor | None]
"""A module that computes x W^T + b, with W [out, in] and b [out] or None."""


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN is there, has kernels for the type of the weight, and the weight is on the CPU."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return weight.dtype == torch.float32 or private_names.has_bfloat16_kernels()


@contextlib.contextmanager
def packed(layers: Iterable[Layer], n_rows: int) -> Iterator[None]:
    """Within this context the modules compute from packed copies of the weights given; without gradients.

    The weights are taken one after the other, so that an iterator that makes them holds one at a time. n_rows is the
    usual number of rows per product.
    """
    changed: list[nn.Module] = []
    try:
        for module, weight, bias in layers:
            blocks = private_names.pack_linear_weight(weight.contiguous(), n_rows)
            module.forward = _Product(blocks, bias)  # of this instance; its class's own comes back below
            changed.append(module)
        yield
    finally:
        for module in changed:
            del module.forward


class _Product:
    def __init__(self, blocks: Tensor, bias: Tensor | None) -> None:
        self.blocks, self.bias, self.product = blocks, bias, private_names.linear_pointwise

    def __call__(self, x: Tensor) -> Tensor:
        return self.product(x, self.blocks, self.bias, "none", [], "")
