"""FSDP2: the processes of a machine divide a model among themselves, from loading on.

The first process of each machine reads the model, into the memory of the CPU. The others get it without its weights,
and these one block after the other: a block is handed out whole, cut, and every process keeps its share. So none has
more on its device than its share, one block, and what is never divided: embeddings, norms outside of the blocks, LM
head. The model is the frozen base of adapters or, where all weights are trained, policy, critic or reference.
"""

import contextlib
import io
import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from rlhf.config import ModelConfig
from rlhf.config.checks import require
from rlhf.errors import UserError, with_kind
from rlhf.models.dropout import ordinary_tokens
from rlhf.models.head import trunk_of
from rlhf.models.load import default_device, load_causal_lm
from rlhf.models.mixed import compute_in
from rlhf.models.private_names import block_names
from rlhf.parallel.ranks import Ranks

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_divided(
    config: ModelConfig, ranks: Ranks, trained: bool = False, mesh: DeviceMesh | None = None
) -> "PreTrainedModel":
    """What `load_causal_lm` loads, with its blocks divided; all processes have to call it.

    Every pass through the model gathers each block while it runs: it takes all processes of the machine.

    Args:
        config: Of the model.
        ranks: The processes.
        trained: Whether it is trained, not frozen. Then its weights are float32, and `config.dtype` is what they are
            multiplied in; the gradients of the processes of a machine are added up.
        mesh: That of another divided model; None makes one.

    Raises UserError as `load_causal_lm` does, for a model whose class does not name its blocks, and on one process.
    """
    require(ranks.count > 1, "accelerate was told to use fsdp on one process; it divides the base among two or more")
    device = default_device()
    mesh = mesh or mesh_of_machine(device.type)
    group, model, sent = mesh.get_group(), None, [b""]
    with ranks.failing_together():
        if group.rank() == 0:
            stored = replace(config, dtype="float32") if trained else config
            model = load_causal_lm(stored, torch.device("cpu")).requires_grad_(False)
            require_blocks(model)
            sent = [without_weights(model)]
    torch.distributed.broadcast_object_list(sent, group=group, group_src=0)
    with ranks.failing_together():
        model = with_empty_weights(sent[0]) if model is None else model
    dtype = torch.bfloat16 if trained and config.dtype == "bfloat16" else None
    for block in require_blocks(model):
        _hand_out_weights(block, device, group, trained)
        divided = fully_shard(block, mesh=mesh, mp_policy=MixedPrecisionPolicy(dtype, torch.float32 if dtype else None))
        divided.set_gradient_divide_factor(1.0)  # losses are divided by the tokens of all processes
        divided.set_force_sum_reduction_for_comms(True)  # gloo multiplies nothing on the way
    _hand_out_weights(model, device, group, trained)
    fully_shard(trunk_of(model), mesh=mesh, ignored_params=set(model.parameters()))  # a block is fetched ahead of time
    if dtype is not None:
        compute_in(dtype, model)
    return model


def load_beside(
    model: "PreTrainedModel", config: ModelConfig, ranks: Ranks, with_trunk: bool
) -> "tuple[PreTrainedModel, nn.Module | None]":
    """A reference, and a trunk for the critic if it has one of its own, beside a divided model that is trained.

    Loaded anew, since what is divided cannot be copied; all processes have to call it.
    """
    mesh = mesh_of(model)
    trunk = trunk_of(load_divided(config, ranks, trained=True, mesh=mesh)) if with_trunk else None
    return load_divided(config, ranks, mesh=mesh), trunk


def mesh_of_machine(device_type: str) -> DeviceMesh:
    """The processes of this machine in a row; launchers number them machine by machine.

    Every machine holds the whole of a model (HSDP): no weight crosses the network between two, gradients do once per
    minibatch.
    """
    processes = torch.distributed.get_world_size()
    per_machine = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    require(
        processes % per_machine == 0,
        f"{processes} processes on machines of {per_machine} each; FSDP needs the same number on every machine",
    )
    names = ("machine", "fsdp")  # by the latter PEFT knows that a layer computes with its whole weight
    return init_device_mesh(device_type, (processes // per_machine, per_machine), mesh_dim_names=names)["fsdp"]


def require_blocks(model: "PreTrainedModel") -> list[nn.Module]:
    """The transformer blocks of a model; raises UserError where its class does not name them."""
    names = block_names(model)
    blocks = [module for module in trunk_of(model).modules() if type(module).__name__ in names]
    require(bool(blocks), f"{type(model).__name__} does not name its transformer blocks; FSDP needs that, use DDP")
    return blocks


@torch.no_grad()
def order_of_blocks(trunk: Any) -> list[Any]:
    """The divided blocks of a trunk in the order in which a pass gathers them; empty if it is not divided.

    Found by reading a few tokens, which takes all processes: a block may run twice, or never.
    """
    order: list[Any] = []
    blocks: list[Any] = [module for module in trunk.modules() if isinstance(module, FSDPModule) and module is not trunk]
    hooks = [block.register_forward_pre_hook(lambda block, _inputs: order.append(block)) for block in blocks]
    if blocks:
        was_training = trunk.training
        trunk.eval()
        trunk(input_ids=ordinary_tokens(trunk), use_cache=False)
        trunk.train(was_training)
    for hook in hooks:
        hook.remove()
    return order


def mesh_of(module: nn.Module) -> DeviceMesh | None:
    """The processes that divide a module, as a mesh; None if it is whole."""
    return next((p.device_mesh for p in module.parameters() if isinstance(p, DTensor)), None)


def group_of(block: nn.Module) -> torch.distributed.ProcessGroup:
    """The processes that divide a block."""
    mesh = mesh_of(block)
    assert mesh is not None
    return mesh.get_group()


def is_gathered(block: nn.Module) -> bool:
    """Whether this process has the whole of a divided block, for the moment."""
    return mesh_of(block) is None


class _WithoutWeights(pickle.Pickler):
    """Writes a model with a number, a shape and a dtype in place of each parameter."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.numbers: dict[nn.Parameter, int] = {}

    def persistent_id(self, obj: Any) -> tuple[int, torch.Size, torch.dtype] | None:
        if not isinstance(obj, nn.Parameter):
            return None
        return self.numbers.setdefault(obj, len(self.numbers)), obj.shape, obj.dtype


class _WithEmptyWeights(pickle.Unpickler):
    """Reads that with parameters on the meta device; one that is tied is the same in all its places."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.parameters: dict[int, nn.Parameter] = {}

    def persistent_load(self, pid: Any) -> nn.Parameter:
        number, shape, dtype = pid
        empty = torch.empty(shape, dtype=dtype, device="meta")
        return self.parameters.setdefault(number, nn.Parameter(empty, requires_grad=False))


@contextlib.contextmanager
def _sending() -> Iterator[None]:
    """A class of its own code may not be known to the other processes, and a module may hold what cannot be written."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f"the model cannot be sent from one process to the others ({with_kind(error)[:200]}), which FSDP needs; "
            "use configs/accelerate/multi_gpu.yaml"
        ) from error


def without_weights(model: "PreTrainedModel") -> bytes:
    """A model without its parameters, and the state of torch's random numbers.

    Raises UserError if it cannot be sent.
    """
    file = io.BytesIO()
    with _sending():
        _WithoutWeights(file).dump((model, torch.get_rng_state()))
    return file.getvalue()


def with_empty_weights(sent: bytes) -> "PreTrainedModel":
    """The model that `without_weights` was given, with parameters on the meta device.

    What random numbers had been drawn there, have been drawn here too.
    """
    model: PreTrainedModel
    with _sending():
        model, random_state = _WithEmptyWeights(io.BytesIO(sent)).load()
        torch.set_rng_state(random_state)
    return model


def _hand_out_weights(
    module: nn.Module, device: torch.device, group: torch.distributed.ProcessGroup, trained: bool
) -> None:
    """Give all processes the parameters of a module that the first one has, those excepted that are divided already."""
    there: dict[nn.Parameter, nn.Parameter] = {}
    for owner, name, parameter in _undivided(module):
        if parameter not in there:
            data = torch.empty_like(parameter, device=device) if parameter.is_meta else parameter.data.to(device)
            torch.distributed.broadcast(data, group=group, group_src=0)
            there[parameter] = nn.Parameter(data, requires_grad=trained and data.is_floating_point())
        owner.register_parameter(name, there[parameter])
    for owner in module.modules():
        for name, buffer in list(owner.named_buffers(recurse=False)):
            setattr(owner, name, buffer.to(device))


def _undivided(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    for owner in module.modules():
        for name, parameter in list(owner.named_parameters(recurse=False)):
            if not isinstance(parameter, DTensor):
                yield owner, name, parameter
