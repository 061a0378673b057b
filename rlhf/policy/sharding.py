"""Passes through trunks that are divided among processes (`rlhf.models.divided`), by processes with different work.

Gathering a block takes all processes of a machine. In the clipped epochs and while the policy is built they run the
same passes. Where they do not, in decoding and evaluation, they say before each pass through which trunk it goes: the
policy's, that of a reference or a critic. One trunk at a time has its turn, and those that have no pass through it
gather with the others, and throw away, until all are done.
"""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from rlhf.models.divided import group_of, is_gathered, order_of_blocks
from rlhf.models.head import trunk_of
from rlhf.parallel.launch import gathers_between_updates
from rlhf.policy.policy import Policy


def find_divided(policy: Policy) -> dict[nn.Module, list[Any]]:
    """The policy's trunks that are divided, each with its blocks in the order in which a pass gathers them.

    All processes have to call it.
    """
    models = [policy.language_model, *([] if policy.frozen_reference is None else [policy.frozen_reference])]
    trunks = [trunk_of(model) for model in models]
    if policy.wrapper.critic_trunk is not None:
        trunks.append(policy.wrapper.critic_trunk)
    orders = {trunk: order_of_blocks(trunk) for trunk in trunks}
    return {trunk: blocks for trunk, blocks in orders.items() if blocks}


@contextlib.contextmanager
def in_step(policy: Policy) -> Iterator[None]:
    """Within this context each process runs as many passes without gradients as it likes; no-op on whole models.

    All processes have to enter it, and to exchange nothing else in it. One that is done, or has failed, leaves it when
    all are done. With `fsdp_reshard_after_forward: false` the first pass through a trunk gathers all of its blocks,
    which stay whole until the end.
    """
    if not policy.divided_trunks:
        yield
        return
    passes = _Passes(policy, gathers_between_updates())
    try:
        yield
    finally:
        passes.finish()


class _Trunk:
    """How far the pass of this process through a divided trunk is."""

    def __init__(self, trunk: Any, blocks: list[Any]) -> None:
        self.trunk, self.blocks = trunk, blocks  # FSDPModule and nn.Module in one
        self.is_whole, self.n_gathered = False, 0

    def count(self, *_: Any) -> None:
        self.n_gathered = (self.n_gathered + 1) % len(self.blocks)

    def complete(self) -> None:
        """Gather what is left of a pass that an error has cut short: the others do."""
        if not self.is_whole and (self.n_gathered or is_gathered(self.blocks[0])):
            next_one = self.n_gathered + is_gathered(self.blocks[self.n_gathered])
            self.trunk.reset_iter_state()
            self.gather_from(next_one)
            self.n_gathered = 0

    def gather_from(self, first: int) -> None:
        for block in self.blocks[first:]:
            block.unshard()
            block.reshard()

    def gather_all(self) -> None:
        self.is_whole = True
        for block in dict.fromkeys(self.blocks):
            block.set_reshard_after_forward(False)
            block.unshard()

    def divide_again(self) -> None:
        for block in dict.fromkeys(self.blocks):
            block.set_reshard_after_forward(True)
            block.reshard()


class _Passes:
    """Announces the passes of this process, and keeps up with those of the others."""

    def __init__(self, policy: Policy, stays_whole: bool) -> None:
        self.trunks = [_Trunk(trunk, blocks) for trunk, blocks in policy.divided_trunks.items()]
        self.stays_whole = stays_whole
        self.flags = torch.zeros(len(self.trunks), device=policy.device)
        self.group = group_of(self.trunks[0].blocks[0])
        self.hooks = []
        for each in self.trunks:
            self.hooks.append(each.trunk.register_forward_pre_hook(partial(self.begin, each), prepend=True))
            if not stays_whole:
                self.hooks += [block.register_forward_pre_hook(each.count) for block in dict.fromkeys(each.blocks)]

    def begin(self, mine: _Trunk, *_: Any) -> None:
        """A pass of this process begins, once it is the turn of its trunk."""
        self.complete()
        while not mine.is_whole:
            turn = self.agree(mine)
            assert turn is not None
            if turn is mine and not self.stays_whole:
                return
            self.gather(turn)

    def agree(self, mine: _Trunk | None) -> _Trunk | None:
        """The first trunk that any process has a pass through; None if none has. This one has one through `mine`."""
        torch.distributed.all_reduce(
            self.flags.copy_(torch.tensor([each is mine for each in self.trunks])), group=self.group
        )
        return next((each for each, n in zip(self.trunks, self.flags.tolist(), strict=True) if n), None)

    def gather(self, turn: _Trunk) -> None:
        """Do for a trunk what the others do who run a pass through it."""
        if self.stays_whole:
            turn.gather_all()
        else:
            turn.gather_from(0)

    def complete(self) -> None:
        for each in self.trunks:
            each.complete()

    def finish(self) -> None:
        """Keep up with the others until none has a pass left."""
        for hook in self.hooks:
            hook.remove()
        self.complete()
        for each in self.trunks:
            each.trunk.reset_iter_state()  # it has kept the order of all passes, which differs among processes
        while not all(each.is_whole for each in self.trunks) and (turn := self.agree(None)) is not None:
            self.gather(turn)
        for each in self.trunks:
            if each.is_whole:
                each.divide_again()
