"""A policy whose weights are divided among processes, as one of them writes and reads it."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlhf.config.checks import require
from rlhf.models.divided import mesh_of
from rlhf.models.shares import gathered, share_of
from rlhf.parallel.ranks import Ranks
from rlhf.policy.policy import Policy

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextlib.contextmanager
def whole_on_first(policy: Policy) -> Iterator[None]:
    """Within this context the first process can write the policy: the divided weights that are trained are whole in its
    CPU memory. All processes have to enter it; no-op where all weights that are trained are whole.

    They are put together one after the other, so that a GPU never holds more of them than one.
    """
    try:
        if not policy.is_peft:
            keep = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
            for model in (policy.language_model, policy.wrapper.critic_trunk):
                if model is not None and mesh_of(model) is not None:
                    policy.whole[model] = _state(model, keep)
        yield
    finally:
        policy.whole.clear()


def whole_state(policy: Policy, model: nn.Module) -> dict[str, Tensor] | None:
    """What is written of a model of the policy; None where that is what the model itself holds.

    Raises UserError for a divided one outside of `whole_on_first`.
    """
    require(
        mesh_of(model) is None or model in policy.whole,
        "the policy is divided among processes; save it within rlhf.policy.whole.whole_on_first(policy), which all of "
        "them have to enter",
    )
    return policy.whole.get(model)


def _state(model: nn.Module, keep: bool) -> dict[str, Tensor]:
    """The model's state with every divided tensor whole; one that is tied is the same under all its names."""
    return {name: gathered(tensor, keep) for name, tensor in model.state_dict().items()}


@torch.no_grad()
def hand_out(read: "Callable[[], PreTrainedModel]", model: nn.Module) -> None:
    """Give all processes the weights of a model that the first of each machine reads; all have to call it.

    Args:
        read: Returns the same model, whole.
        model: The divided one that takes the weights.

    Raises UserError for weights of other names or shapes.
    """
    mesh = mesh_of(model)
    assert mesh is not None
    group, found = mesh.get_group(), dict[str, Tensor]()
    with Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size()).failing_together():
        if group.rank() == 0:
            found = dict(read().named_parameters())
            for name, parameter in model.named_parameters():
                same = name in found and found[name].shape == parameter.shape
                require(same, f"{name} of the stored policy has another shape; it belongs to another model")
    for name, parameter in model.named_parameters():
        whole = torch.empty(parameter.shape, dtype=parameter.dtype, device=parameter.device)
        if found:
            whole.copy_(found.pop(name))
        torch.distributed.broadcast(whole, group=group, group_src=0)
        parameter.data.copy_(share_of(whole, parameter.data))
