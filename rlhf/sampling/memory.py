"""The memory that decoding takes, and whether there is enough for a copy of the weights with the adapters merged in.

With the copy a decoding step is a product less per layer and, on a CPU, reads weights in the order of its kernels.
Without it the policy decodes as it stands: the same model, but another rounding, so that in 16 bits other tokens are
sampled soon. That is why the choice is made once, by all processes together, and is part of a checkpoint.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from rlhf.config.checks import require
from rlhf.config.common import MergeAdapters
from rlhf.models.device_memory import NEARLY_FULL, amount, held, room
from rlhf.parallel.ranks import Ranks
from rlhf.policy.merged import in_eval_mode, lora_layers, obstacle, size_of_copy, storage_obstacle
from rlhf.policy.policy import Policy
from rlhf.sampling.batch import DecodingBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FLOAT, DOUBLE = 4, 8
ONE_PROCESS = Ranks()


def choose_copies(
    policy: Policy,
    setting: MergeAdapters,
    n_rows: int,
    n_tokens: int,
    to_come: int = 0,
    ranks: Ranks = ONE_PROCESS,
) -> None:
    """Decide whether decoding copies weights (`Shortcuts.copies`), unless that is decided; say so if it will not.

    `auto` copies where every process has the memory for it. All ranks have to call it.

    Args:
        policy: Its adapters are merged, or not.
        setting: `sampling.merge_adapters`.
        n_rows: Responses that are decoded at once.
        n_tokens: The longest prompt and response together.
        to_come: Bytes that the process will take besides.
        ranks: The processes.

    Raises UserError where the setting is `always` and the adapters cannot be merged.
    """
    reason = "as when this run began"
    if policy.shortcuts.copies is None:
        reason = _reason(policy, setting, lambda: _shortage(policy, n_rows, n_tokens, to_come), ranks)
        policy.shortcuts.copies = not reason
    if not policy.shortcuts.copies and policy.is_peft and ranks.is_first:
        print(f"decoding with the adapters beside the weights, not merged: {reason}", file=sys.stderr)


def _reason(policy: Policy, setting: MergeAdapters, shortage: Callable[[], str], ranks: Ranks) -> str:
    """Why no copy is made; empty if one is."""
    if setting == "never":
        return "sampling.merge_adapters is never"
    if setting == "auto":
        lacking = [] if storage_obstacle(policy) else [text for text in ranks.exchange(shortage) if text]
        return lacking[0] if lacking else obstacle(policy)
    require(
        bool(lora_layers(policy.language_model)),
        "sampling.merge_adapters is always, but the model has no adapters; leave it out",
    )
    why = obstacle(policy)
    require(not why, f"sampling.merge_adapters is always, but {why}; set it to auto")
    return ""


def _shortage(policy: Policy, n_rows: int, n_tokens: int, to_come: int) -> str:
    """What this process lacks for the copy, in words; empty if it has the memory."""
    copy, rest = size_of_copy(policy), size_of_batch(policy, n_rows, n_tokens) + to_come
    holds, in_all = held(policy.device), room(policy.device)
    if holds + copy + rest <= NEARLY_FULL * in_all:
        return ""
    return f"merged weights take {amount(copy)} and the rest {amount(holds + rest)}, with room for {amount(in_all)}"


def size_of_batch(policy: Policy, n_rows: int, n_tokens: int) -> int:
    """Bytes besides weights while rows of that many tokens are decoded: keys and values, and one token's logits."""
    return n_rows * (n_tokens * cached_of_one_token(policy) + chosen_from(policy))


def chosen_from(policy: Policy) -> int:
    """Bytes from which one token is chosen: its logits, their probabilities in float32, their sums in float64."""
    model = policy.language_model
    return len(model.get_output_embeddings().weight) * (model.dtype.itemsize + FLOAT + DOUBLE)


@torch.no_grad()
def cached_of_one_token(policy: Policy) -> int:
    """Bytes of the key/value cache that one token takes: measured, by reading two. 0 for a model that needs none."""
    if policy.shortcuts.decoding == "uncached":
        return 0
    with in_eval_mode(policy):
        return _cached_by(policy.language_model)


def _cached_by(model: "PreTrainedModel") -> int:
    try:
        batch = DecodingBatch(model, [[0, 0]], 0, 0, "plain")
        batch.read_prompts()
    except Exception:  # a cache of another kind, which fails in a way of its own: it is not decoded with
        return 0
    states = [getattr(layer, name, None) for layer in batch.cache.layers for name in ("keys", "values")]
    return sum(x.nbytes // x.shape[2] for x in states if torch.is_tensor(x) and x.ndim == 4)
