"""Parameters of which every process of a machine holds a share, beside whole ones: their gradients and their moments.

A share is a DTensor, as `rlhf.models.divided` makes them. FSDP adds up the gradients of the processes of a machine in
the backward pass, so that each has its share of the sum; those of several machines are still to be added up.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from rlhf.config.checks import require
from rlhf.parallel.ranks import Ranks


def alike(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """The whole ones and the divided ones, apart: torch computes with one kind at a time. A kind without any is left
    out, unless there are none at all."""
    kinds = ([p for p in parameters if isinstance(p, DTensor) is divided] for divided in (False, True))
    return [kind for kind in kinds if kind] or [parameters]


def sum_gradients(ranks: Ranks, parameters: list[nn.Parameter]) -> None:
    """Replace every gradient by its sum over all ranks, once, after the last micro-batch; all ranks have to call it.

    The same parameters must have a gradient on all ranks.
    """
    ranks.sum_gradients([p for p in parameters if not isinstance(p, DTensor)])
    shares = [_local(p.grad) for p in parameters if isinstance(p, DTensor) and p.grad is not None]
    machines = next((machines_of(p) for p in parameters if isinstance(p, DTensor)), None)
    if machines is None or machines.size() == 1 or not shares:
        return
    total = torch.cat([share.flatten() for share in shares])
    torch.distributed.all_reduce(total, group=machines)
    for share, part in zip(shares, total.split([s.numel() for s in shares]), strict=True):
        share.copy_(part.view_as(share))


def machines_of(share: DTensor) -> torch.distributed.ProcessGroup:
    """The processes, one on each machine, that hold the same share."""
    from rlhf.models.private_names import root_mesh

    return cast(torch.distributed.ProcessGroup, root_mesh(share.device_mesh)["machine"].get_group())


def clip_grad_norm(parameters: list[nn.Parameter], max_norm: float) -> float:
    """Scale the gradients of all parameters together to a norm of max_norm at most; returns the norm before.

    As `torch.nn.utils.clip_grad_norm_`, for whole and divided ones at once. The same on all processes.
    """
    kinds = alike([p for p in parameters if p.grad is not None])
    norms = [_whole(torch.nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None])) for kind in kinds]
    norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    if any(isinstance(p, DTensor) for p in kinds[-1]):
        torch.distributed.broadcast(norm, 0)  # machines add up apart
    for kind in kinds:
        torch.nn.utils.clip_grads_with_norm_(kind, max_norm, norm)
    return float(norm)


def gathered(state: Any, keep: bool) -> Any:
    """Nested dicts and lists with every divided tensor whole, on the CPU; all processes have to call it.

    One tensor after the other is put together. A process that does not `keep` them has empty ones in their place.
    """
    if isinstance(state, DTensor):
        whole = _whole(state.detach())
        return whole.cpu() if keep else whole.new_empty(0)
    if isinstance(state, dict):
        return {key: gathered(value, keep) for key, value in state.items()}
    return [gathered(value, keep) for value in state] if isinstance(state, list) else state


def share_of(whole: Tensor, like: Tensor) -> Tensor:
    """What this process holds of a whole tensor, if it is to be divided like another; without a message to others."""
    if not isinstance(like, DTensor):
        return whole
    whole = whole.to(like.device, like.dtype)
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None).clone()


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Give an optimizer the state that `gathered` has put together.

    Raises UserError for the state of one that has other groups of parameters: divided ones are a group of their own.
    """
    both = (state["param_groups"], optimizer.param_groups)
    theirs, ours = ([len(group["params"]) for group in groups] for groups in both)
    require(
        theirs == ours,
        f"the checkpoint's optimizer has groups of {theirs} parameters, and this run's of {ours}; continue with the "
        "accelerate config that it was saved with (FSDP or not), or start again in another output_dir",
    )
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        number: {
            name: share_of(x, parameters[number]) if name != "step" and isinstance(x, Tensor) else x
            for name, x in of_one.items()
        }
        for number, of_one in state["state"].items()
    }
    optimizer.load_state_dict(state | {"state": moments})


def _whole(x: Tensor) -> Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x


def _local(x: Tensor | None) -> Tensor:
    assert isinstance(x, DTensor)
    return x.to_local()
