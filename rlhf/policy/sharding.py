"""Passes through a base that is divided among processes (`rlhf.models.divided`), by processes with different work.

Gathering a block takes all processes of a machine. In the clipped epochs and while the policy is built they run the
same passes. Where they do not, in decoding and evaluation, they say before each pass that there is one, and those that
have none left gather with the others, and throw away, until all are done.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from rlhf.models.divided import group_of, is_gathered
from rlhf.models.head import trunk_of
from rlhf.parallel.launch import gathers_between_updates
from rlhf.policy.policy import Policy


@contextlib.contextmanager
def in_step(policy: Policy) -> Iterator[None]:
    """Within this context each process runs as many passes without gradients as it likes; no-op on a whole base.

    All processes have to enter it, and to exchange nothing else in it. One that is done, or has failed, leaves it when
    all are done. With `fsdp_reshard_after_forward: false` the first pass gathers all blocks, which stay whole until the
    end.
    """
    if not policy.divided_blocks:
        yield
        return
    passes = _Passes(policy, gathers_between_updates())
    try:
        yield
    finally:
        passes.finish()


class _Passes:
    """Announces the passes of this process, and keeps up with those of the others."""

    def __init__(self, policy: Policy, stays_whole: bool) -> None:
        self.blocks: list[Any] = policy.divided_blocks  # FSDPModule and nn.Module in one
        self.trunk: Any = trunk_of(policy.language_model)
        self.stays_whole = stays_whole
        self.flag = torch.zeros(1, device=policy.device)
        self.group, self.is_whole, self.n_gathered = group_of(self.blocks[0]), False, 0
        self.hooks = [self.trunk.register_forward_pre_hook(self._begin, prepend=True)]
        if not stays_whole:
            self.hooks += [block.register_forward_pre_hook(self._count) for block in set(self.blocks)]

    def _begin(self, *_: Any) -> None:
        """A pass of this process begins."""
        self._complete()
        if not self.is_whole:
            self._someone_has_one(True)
            if self.stays_whole:
                self._gather_all()

    def _count(self, *_: Any) -> None:
        self.n_gathered = (self.n_gathered + 1) % len(self.blocks)

    def _complete(self) -> None:
        """Gather what is left of a pass that an error has cut short: the others do."""
        if not self.is_whole and (self.n_gathered or is_gathered(self.blocks[0])):
            next_one = self.n_gathered + is_gathered(self.blocks[self.n_gathered])
            self.trunk.reset_iter_state()
            self._gather_from(next_one)
            self.n_gathered = 0

    def finish(self) -> None:
        """Keep up with the others until none has a pass left."""
        for hook in self.hooks:
            hook.remove()
        self._complete()
        self.trunk.reset_iter_state()  # it has kept the order of all passes, which differs among processes
        while not self.is_whole and self._someone_has_one(False):
            if self.stays_whole:
                self._gather_all()
            else:
                self._gather_from(0)
        for block in set(self.blocks) if self.is_whole else ():
            block.set_reshard_after_forward(True)
            block.reshard()

    def _someone_has_one(self, have_one: bool) -> bool:
        torch.distributed.all_reduce(self.flag.fill_(have_one), group=self.group)
        return bool(self.flag)

    def _gather_from(self, first: int) -> None:
        for block in self.blocks[first:]:
            block.unshard()
            block.reshard()

    def _gather_all(self) -> None:
        self.is_whole = True
        for block in dict.fromkeys(self.blocks):
            block.set_reshard_after_forward(False)
            block.unshard()
