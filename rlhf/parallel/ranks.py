"""Several processes that train one policy: each samples and differentiates its share, all of them know the whole."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from rlhf.config.checks import require
from rlhf.errors import OtherRankError, with_kind

if TYPE_CHECKING:
    from accelerate import Accelerator, PartialState

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among the others.

    Attributes:
        index: 0 is the one that writes files and talks.
        count: Processes in all, on all machines.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def of(cls, accelerator: "Accelerator | PartialState") -> Self:
        """As the process was launched."""
        return cls(accelerator.process_index, accelerator.num_processes)

    @property
    def is_first(self) -> bool:
        return self.index == 0

    def share(self, n: int) -> slice:
        """Which of n items are this rank's: contiguous, and as many as any other's, give or take one."""
        return slice(n * self.index // self.count, n * (self.index + 1) // self.count)

    def gather(self, item: T) -> list[T]:
        """The items of all ranks, in their order, on all of them; they are pickled and should live on the CPU."""
        if self.count == 1:
            return [item]
        gathered: list[T] = [item] * self.count
        torch.distributed.all_gather_object(gathered, item)
        return gathered

    @contextlib.contextmanager
    def failing_together(self) -> Iterator[None]:
        """Work that each rank does on its own, after which all of them go on or none does.

        If it fails on one rank no other waits for that one forever: it raises its own error, the others
        OtherRankError, which names it.
        """
        error = None
        try:
            yield
        except Exception as problem:
            if self.count == 1:
                raise
            error = problem
        failures = self.gather(None if error is None else with_kind(error))
        if error is not None:
            raise error
        for rank, failure in enumerate(failures):
            if failure is not None:
                raise OtherRankError(f"rank {rank} failed ({failure})")

    def exchange(self, work: Callable[[], T]) -> list[T]:
        """What `work` returns on each rank, on all ranks; they fail together."""
        with self.failing_together():
            result = work()
        return self.gather(result)

    def first(self, work: Callable[[], T]) -> T:
        """What `work` returns on the first rank, which alone does it, on all ranks."""
        return cast(T, self.exchange(lambda: work() if self.is_first else None)[0])

    def any(self, flag: bool) -> bool:
        """Whether the flag is up on any rank."""
        return any(self.gather(flag))

    def sum(self, x: Tensor) -> Tensor:
        """The sum of x over all ranks, on all of them."""
        if self.count > 1:
            torch.distributed.all_reduce(x)
        return x

    def sum_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all ranks, in one reduction after the last micro-batch.

        The same parameters must have a gradient on all ranks.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.count == 1 or not gradients:
            return
        total = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, total.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def wide_sum(x: Tensor) -> Tensor:
    """The sum in float64 on the CPU; where the device has no float64 (MPS) it is added up on the CPU too.

    Of a tensor that is divided among processes that of all of it, for which they all have to ask.
    """
    if isinstance(x, DTensor):
        total: Any = x.sum(dtype=torch.float64)
        return cast(Tensor, total.full_tensor().cpu())
    return x.cpu().sum(dtype=torch.float64) if x.device.type == "mps" else x.sum(dtype=torch.float64).cpu()


def require_same_weights(ranks: Ranks, module: nn.Module) -> None:
    """Raise UserError unless all ranks hold the same parameters, up to the rounding of their sums."""
    if ranks.count == 1:
        return
    sums = torch.stack([wide_sum(parameter.detach()) for parameter in module.parameters()])
    for rank, others in enumerate(ranks.gather(sums)):
        require(
            torch.allclose(others, sums, rtol=1e-6, atol=1e-6, equal_nan=True),
            f"rank {rank} has loaded other weights than rank {ranks.index}; is the model's folder the same everywhere?",
        )
