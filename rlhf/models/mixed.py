"""Float32 weights that are multiplied in bfloat16: steps are not lost to rounding, and products are fast.

Where FSDP divides weights it rounds them while it gathers them (`MixedPrecisionPolicy`). This is for the whole ones
beside them. A model so mixed computes what the same model with bfloat16 weights does.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def compute_in(dtype: torch.dtype, model: nn.Module) -> None:
    """Have all modules with whole weights of their own compute in another type than their weights are in."""
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if not own or any(isinstance(parameter, DTensor) for parameter in own):
            continue
        if type(module) is nn.Embedding:  # a few rows: the same as to round all of them
            module.register_forward_hook(lambda _module, _inputs, rows: rows.to(dtype))
        else:
            _Rounded(dtype, module)


class _Rounded:
    """While a module runs, its weights are rounded; gradients reach the original."""

    def __init__(self, dtype: torch.dtype, module: nn.Module) -> None:
        self.dtype, self.originals = dtype, dict[str, Tensor | None]()
        module.register_forward_pre_hook(self.before)
        module.register_forward_hook(self.after, always_call=True)

    def before(self, module: nn.Module, _inputs: Any) -> None:
        from rlhf.models.private_names import parameters_in_place

        in_place = parameters_in_place(module)
        self.originals = dict(in_place)
        for name, parameter in self.originals.items():
            if parameter is not None and parameter.is_floating_point():
                in_place[name] = parameter.to(self.dtype)

    def after(self, module: nn.Module, *_: Any) -> None:
        from rlhf.models.private_names import parameters_in_place

        parameters_in_place(module).update(self.originals)
