"""A micro-batch of SFT or of a reward model, sent through the model in parts whose rows are about as long."""

import contextlib
import math
import operator
from typing import TYPE_CHECKING, Any

from rlhf.parallel.ranks import Ranks

if TYPE_CHECKING:
    from torch import Tensor, nn

TOKENS_AT_ONCE = 1024
"""Tokens, padding included, that are in the model at once: enough for its products to be as fast as they get. More
would only take more memory, which is written and read again outside of the cache."""
IGNORED = -100
"""Label of a token that is not trained on."""

Batch = dict[str, Any]
"""What a data collator of TRL's makes: input_ids and attention_mask [B, L], padded on the right, and labels [B, L] for
SFT; for a reward model the second half of the rows are the rejected sides of the first."""


def by_length(trainer_class: type) -> type:
    """A subclass of TRL's SFTTrainer or RewardTrainer that divides its micro-batches on a CPU."""
    return type(f"ByLength{trainer_class.__name__}", (ByLength, trainer_class), {})


class ByLength:
    """Overrides for a trainer of TRL's.

    The gradient is that of the whole micro-batch up to the order of additions: SFT's loss is a sum over tokens, already
    divided by those of the whole optimizer step, and the reward model's a mean over pairs, to which a part adds its
    share. Which rows make up a micro-batch or a step stays what it is.
    """

    share = 1.0  # of what the loss is a mean over

    def training_step(self: Any, model: "nn.Module", inputs: Batch, num_items_in_batch: Any = None) -> "Tensor":
        """Loss of a micro-batch; its gradient is added to the parameters'."""
        parts = divide(inputs, self._n_parts(inputs))
        weights = [n_items(part) for part in parts]
        shares = [weight / max(1, sum(weights)) for weight in weights]
        losses: list[Any] = []
        for part, share in zip(parts, shares, strict=True):
            self.share = share if num_items_in_batch is None else 1.0
            is_last = len(losses) == len(parts) - 1  # ranks exchange gradients once
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(model):
                losses.append(super().training_step(model, part, num_items_in_batch))  # type: ignore[misc]
        self.share = 1.0
        for values in self._metrics["train"].values():  # an entry for each part, where TRL means one for the whole
            if len(values) >= len(parts):
                values[-len(parts) :] = [sum(map(operator.mul, values[-len(parts) :], shares))]
        return sum(losses)

    def compute_loss(
        self: Any, model: "nn.Module", inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """What a part adds to the loss of its micro-batch."""
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]
        return (self.share * result[0], result[1]) if return_outputs else self.share * result

    def _n_parts(self: Any, inputs: Batch) -> int:
        """As many on every rank, since they exchange metrics after each; a loss of whole batches is not divided."""
        if self.args.device.type != "cpu" or getattr(self, "aux_loss_enabled", False):
            return 1
        wanted = min(math.ceil(inputs["input_ids"].numel() / TOKENS_AT_ONCE), n_rows(inputs))
        return max(Ranks.of(self.accelerator).gather(wanted))


def n_rows(batch: Batch) -> int:
    """Rows that can be apart from each other: those of SFT, or pairs."""
    return len(batch["input_ids"]) // (1 if "labels" in batch else 2)


def n_items(batch: Batch) -> int:
    """What the loss of a batch is a mean over: tokens that are trained on, or pairs."""
    return int((batch["labels"][:, 1:] != IGNORED).sum()) if "labels" in batch else n_rows(batch)


def divide(batch: Batch, n_parts: int) -> list[Batch]:
    """Parts of about as many rows (or pairs), the shortest first, each as wide as its longest row."""
    if n_parts == 1:
        return [batch]
    sides = len(batch["input_ids"]) // n_rows(batch)
    lengths = batch["attention_mask"].sum(1).view(sides, -1).amax(0)
    parts = []
    for rows in lengths.argsort(stable=True).tensor_split(n_parts):
        both = (rows + n_rows(batch) * side for side in range(sides))
        width = int(lengths[rows].max())
        index = [row for side in both for row in side.tolist()]
        parts.append({name: tensor[index, :width] for name, tensor in batch.items()})
    return parts
