"""A critic that branches off the policy: only the last blocks of the trunk run again, with adapters of its own.

The policy's pass leaves its hidden state in front of them; from there the critic goes on, without a gradient to the
policy. With k of N blocks in the branch that is k/N of the work and activations of a critic with adapters on all.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rlhf.config.checks import require
from rlhf.errors import UserError
from rlhf.models.dropout import ordinary_tokens
from rlhf.models.head import trunk_of
from rlhf.models.shape import text_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

INSTEAD = "use critic: adapter, which has its adapters on all blocks"


class Branch:
    """The last blocks of a trunk, which can go on from where an earlier pass was.

    Args:
        model: A causal language model.
        n_blocks: How many of its blocks; None is a quarter, rounded, at least one.

    Raises UserError where there are not more blocks than that, or no list of blocks.
    """

    def __init__(self, model: "PreTrainedModel", n_blocks: int | None = None) -> None:
        blocks = find_blocks(model)
        self.n_blocks = n_blocks or max(1, round(len(blocks) / 4))
        require(
            self.n_blocks < len(blocks),
            f"critic_layers is {self.n_blocks}, but {type(model).__name__} has {len(blocks)} blocks, one at least of "
            f"which must be the policy's alone; {INSTEAD}",
        )
        self.below, self.blocks = blocks[: -self.n_blocks], blocks[-self.n_blocks :]

    def keep_only_here(self, model: nn.Module, adapter: str) -> None:
        """Take an adapter off every layer outside the branch, where it would never be used."""
        from rlhf.models.private_names import BaseTunerLayer

        inside = {id(module) for block in self.blocks for module in block.modules()}
        for layer in model.modules():
            if isinstance(layer, BaseTunerLayer) and id(layer) not in inside:
                layer.delete_adapter(adapter)

    @contextlib.contextmanager
    def leaving(self) -> Iterator[list[Any]]:
        """Within this context a pass of the trunk leaves in the list what the branch goes on from."""
        left: list[Any] = []
        handle = self.below[-1].register_forward_hook(lambda _block, _inputs, output: left.append(detached(output)))
        try:
            yield left
        finally:
            handle.remove()

    @contextlib.contextmanager
    def going_on(self, left: list[Any]) -> Iterator[None]:
        """Within this context a pass of the trunk computes the blocks of the branch only, from what the other left."""
        [output] = left
        own = [vars(block).get("forward") for block in self.below]
        for block in self.below:
            block.forward = lambda *args, **kwargs: output
        try:
            yield
        finally:
            for block, forward in zip(self.below, own, strict=True):
                del block.forward
                if forward is not None:
                    block.forward = forward


def find_blocks(model: "PreTrainedModel") -> nn.ModuleList:
    """The transformer blocks of a model: the outermost list with as many modules as its config says it has layers."""
    n_blocks = getattr(text_config(model), "num_hidden_layers", None)
    for module in trunk_of(model).modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_blocks:
            return module
    raise UserError(f"critic is branch, but the blocks of {type(model).__name__} are in no list; {INSTEAD}")


@torch.no_grad()
def require_branch(branch: Branch, model: "PreTrainedModel") -> None:
    """Raise UserError unless the branch goes on to what the whole trunk computes, bit for bit, on a few tokens.

    It does not where blocks hand on more than their output, such as keys and values that later blocks share.
    """
    ids, trunk = ordinary_tokens(model), trunk_of(model)
    with branch.leaving() as left:
        whole = trunk(input_ids=ids, use_cache=False).last_hidden_state
    try:
        with branch.going_on(left):
            ours = trunk(input_ids=ids, use_cache=False).last_hidden_state
        is_same = torch.equal(whole, ours)
    except (RuntimeError, TypeError, ValueError, KeyError, AttributeError, IndexError):
        is_same = False
    require(
        is_same,
        f"critic is branch, but the blocks of {type(model).__name__} hand on more than their output; {INSTEAD}",
    )


def detached(output: Any) -> Any:
    """A block's output without its history: a tensor, or a tuple or list that holds some."""
    if isinstance(output, tuple | list):
        return type(output)(map(detached, output))
    return output.detach() if torch.is_tensor(output) else output
