"""FSDP2 for the frozen base: while the clipped epochs run, each process keeps only its share of the blocks' weights.

What is trained (adapters, value head) is small and stays whole on every process, so the optimizer, the checkpoints and
the sum of the gradients know nothing of this.
"""

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from rlhf.config.checks import require
from rlhf.models.private_names import block_names
from rlhf.policy.policy import Policy


def shard_base(policy: Policy) -> None:
    """Divide the frozen weights of the transformer blocks among the processes; all of them have to call it.

    The processes of one machine divide them, and every machine holds them all (HSDP): blocks are gathered within a
    machine, never over the network between two.

    The weights are gathered again at once: outside `sharded` every process holds them whole, so that decoding loops
    and evaluations of different length need no other process. Embeddings and LM head are never divided.

    Raises UserError for a model that is trained in full, or whose class does not name its blocks.
    """
    require(policy.is_peft, "FSDP divides the frozen base of LoRA adapters, but the model is trained in full; use DDP")
    trunk = policy.language_model.base_model
    names = block_names(policy.language_model)
    blocks = [module for module in trunk.modules() if type(module).__name__ in names]
    require(bool(blocks), f"{type(policy.language_model).__name__} does not name its transformer blocks; use DDP")
    divided = {p for block in blocks for p in block.parameters() if not p.requires_grad}
    whole = set(policy.parameters()) - divided
    mesh = mesh_of_machines(policy.device.type)
    for block in blocks:
        fully_shard(block, mesh=mesh, ignored_params=whole, reshard_after_forward=False)
    fully_shard(trunk, mesh=mesh, ignored_params=whole)  # owns no weights; lets a block be fetched while another runs
    policy.divided_blocks = blocks
    _gather(blocks)


def mesh_of_machines(device_type: str) -> DeviceMesh:
    """The processes in a row, or a row for each machine; launchers number them machine by machine."""
    processes = torch.distributed.get_world_size()
    per_machine = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    if per_machine == processes:
        return init_device_mesh(device_type, (processes,))
    require(
        processes % per_machine == 0,
        f"{processes} processes on machines of {per_machine} each; FSDP needs the same number on every machine",
    )
    return init_device_mesh(device_type, (processes // per_machine, per_machine), mesh_dim_names=("replicate", "shard"))


@contextlib.contextmanager
def sharded(policy: Policy) -> Iterator[None]:
    """Within this context a process holds its shares, and the whole of a block only while that block runs.

    All processes must run the same number of forward and backward passes in it. No-op if the base is not divided.
    After an error the weights stay divided: the other processes may not be there to gather them from.
    """
    blocks = policy.divided_blocks
    for block in blocks:
        block.set_reshard_after_forward(True)
        block.reshard()
    yield
    _gather(blocks)


def _gather(blocks: list[nn.Module]) -> None:
    for block in blocks:
        assert isinstance(block, FSDPModule)
        block.set_reshard_after_forward(False)
        block.unshard()
