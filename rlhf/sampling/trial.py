"""A trial before the first sample: is the model the same when it is read token by token?

The update reads whole sequences at once. A cache that forgets (one for a recurrent state, say), positions that are
counted from the left edge of the padding, weights that were merged wrongly: each would sample from another distribution
than the one that is optimized. The next family of models will bring another such surprise, so nothing is looked up in
a list of names here.
"""

import contextlib
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlhf.config.checks import require
from rlhf.errors import UserError, first_line
from rlhf.models.adapters import stirred
from rlhf.models.dropout import ordinary_tokens
from rlhf.models.head import head_of, trunk_of
from rlhf.models.rounding import is_rounding, relative_error
from rlhf.policy.merged import autocasts, decoding, merged
from rlhf.policy.policy import Policy
from rlhf.sampling.batch import DecodingBatch, Way, open_batch
from rlhf.sampling.memory import choose_copies
from rlhf.sampling.turn_cache import TurnCache

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROMPTS = (5, 5, 3)
"""Tokens of the prompts that are tried: two equal ones, which are read once, and one that is padded."""
STEPS = 3
NEW = (3, 2, 3)
"""Tokens of their second turn."""


def way_of(policy: Policy) -> Way:
    """The fastest way to read token by token that gives the logits of reading at once; found once per policy.

    Cost, of the way that is usually right: nine passes over at most 24 tokens, and packing the weights.
    Raises UserError where none does.
    """
    if policy.shortcuts.decoding is None:
        policy.shortcuts.decoding = _find_way(policy)
    return "plain" if autocasts(policy) and policy.shortcuts.decoding == "fast" else policy.shortcuts.decoding


@torch.no_grad()
def _find_way(policy: Policy) -> Way:
    ways: list[Way] = ["fast", "plain", "uncached"] if policy.fast_paths else ["plain", "uncached"]
    model, reason = policy.language_model, ""
    prompts, sequence_ids = _rows(policy)
    with stirred(policy.adapters()), torch.autocast(policy.device.type, enabled=False):
        at_once = _at_once(model, sequence_ids)
        expected = _picked(at_once, list(PROMPTS))
        require(
            bool(expected.isfinite().all()), f"the logits of {type(model).__name__} are not finite; look at its weights"
        )
        for way in ways:
            policy.shortcuts.decoding = way  # read by `decoding`, which packs for the fast way alone
            try:
                with decoding(policy, len(PROMPTS)):
                    error = relative_error(_token_by_token(policy, prompts, sequence_ids, way), expected)
            except Exception as raised:  # a cache of another kind fails in a way of its own
                reason = first_line(raised)
                continue
            if is_rounding(error, model, lambda: _at_once(model, sequence_ids), at_once):
                if way == "uncached":
                    warnings.warn(_slow(policy))
                return way
            reason = f"relative error {error:.2g}"
    raise UserError(
        f"{type(model).__name__} is another model when it is read token by token than when it is read at once "
        f"({reason}); PPO would optimize other probabilities than those sampled, so it is not supported"
    )


def continues(policy: Policy) -> bool:
    """Whether a turn that reads only what is new in it has the logits of reading at once; found once per policy.

    For the fast way alone: in the other caches there may be more than keys and values.
    """
    if way_of(policy) != "fast":
        return False
    if policy.shortcuts.continues is None:
        policy.shortcuts.continues = _continuing_changes_nothing(policy)
    return policy.shortcuts.continues


@torch.no_grad()
def _continuing_changes_nothing(policy: Policy) -> bool:
    model = policy.language_model
    prompts, sequence_ids = _rows(policy)
    rows = [ids[: n + new].tolist() for ids, n, new in zip(sequence_ids, PROMPTS, NEW, strict=True)]
    with stirred(policy.adapters()), torch.autocast(policy.device.type, enabled=False):
        at_once = _at_once(model, sequence_ids)
        expected = torch.stack([logits[len(row) - 1] for logits, row in zip(at_once, rows, strict=True)])
        turns = TurnCache()
        try:
            with decoding(policy, len(PROMPTS)):
                for ids in (prompts, rows):
                    batch = DecodingBatch(model, ids, 1, int(sequence_ids[0, 0]), "fast", turns)
                    found = head_of(model)(batch.read_prompts())
                    turns.put([0, 1, 2], batch.states(torch.ones(len(ids), dtype=torch.bool)))
                    turns.close(ids)
        except Exception:  # as above
            return False
        return is_rounding(relative_error(found, expected), model, lambda: _at_once(model, sequence_ids), at_once)


@contextlib.contextmanager
def generating(policy: Policy, batch_size: int) -> Iterator[None]:
    """Within this context transformers' own `generate` samples from the policy, as `merged`.

    Raises UserError where it would sample from another distribution than the update optimizes: a model may read prompts
    of different length, padded on the left, as other prompts. One at a time, without padding, it may be right.
    """
    if policy.shortcuts.copies is None:
        choose_copies(policy, "auto", batch_size, max(PROMPTS) + STEPS)
    with merged(policy):
        if batch_size not in policy.shortcuts.generates:
            policy.shortcuts.generates[batch_size] = _generating_error(policy, batch_size)
        error = policy.shortcuts.generates[batch_size]
        if error:
            advice = "pass batch_size=1" if batch_size > 1 else "sample in another way"
            raise UserError(
                f"generate of {type(policy.language_model).__name__}, {batch_size} prompts at a time, samples from "
                f"another model than the one that step updates ({error}); {advice}"
            )
        yield


@torch.no_grad()
def _generating_error(policy: Policy, batch_size: int) -> str:
    """What is wrong with `generate`, in words; empty if nothing is: greedy tokens with their logits, against a pass."""
    model, (short, long) = policy.language_model, (min(PROMPTS), max(PROMPTS))
    ids = ordinary_tokens(model, 2, long)
    mask = torch.ones_like(ids)
    if batch_size > 1:
        mask[1, : long - short] = 0
    try:
        said = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=STEPS,
            min_new_tokens=STEPS,
            do_sample=False,
            num_beams=1,
            num_return_sequences=1,
            pad_token_id=int(ids[0, 0]),
            output_logits=True,
            return_dict_in_generate=True,
        )
        row = said.sequences[1:, -STEPS - (short if batch_size > 1 else long) :]
        at_once = _at_once(model, row)
    except Exception as raised:
        return first_line(raised)
    found = torch.stack([logits[1] for logits in said.logits])
    error = relative_error(found, at_once[0, -STEPS - 1 : -1])
    is_none = is_rounding(error, model, lambda: _at_once(model, row), at_once)
    return "" if is_none else f"relative error {error:.2g}"


def _at_once(model: "PreTrainedModel", sequence_ids: Tensor) -> Tensor:
    """Logits [B, L, V] of whole sequences, as the update computes them."""
    logits: Tensor = head_of(model)(trunk_of(model)(input_ids=sequence_ids, use_cache=False).last_hidden_state)
    return logits


def _rows(policy: Policy) -> tuple[list[list[int]], Tensor]:
    """Prompts of different length, and the same with what follows, padded on the right: [B, L]."""
    longest = max(PROMPTS) + STEPS
    ids = ordinary_tokens(policy.language_model, 2, longest)[[0, 0, 1]]
    return [ids[row, :n].tolist() for row, n in enumerate(PROMPTS)], ids


def _token_by_token(policy: Policy, prompts: list[list[int]], sequence_ids: Tensor, way: Way) -> Tensor:
    """Logits after each prompt and each further token; the first row leaves before the last one."""
    head = head_of(policy.language_model)
    batch = open_batch(policy.language_model, prompts, STEPS, int(sequence_ids[0, 0]), way)
    lengths, rows = torch.tensor(PROMPTS), torch.arange(len(PROMPTS))
    logits = [head(batch.read_prompts())]
    for step in range(STEPS):
        if step == STEPS - 1:
            batch.keep((rows > 0).to(sequence_ids.device))
            rows = rows[1:]
        logits.append(head(batch.read(sequence_ids[rows, lengths[rows] + step])))
    return torch.cat(logits)


def _picked(logits: Tensor, lengths: list[int]) -> Tensor:
    """The logits [B, L, V] after what `_token_by_token` has read, in its order."""
    picked = []
    for step in range(STEPS + 1):
        rows = range(1, len(lengths)) if step == STEPS else range(len(lengths))
        picked += [logits[row, lengths[row] - 1 + step] for row in rows]
    return torch.stack(picked)


def _slow(policy: Policy) -> str:
    return (
        f"{type(policy.language_model).__name__} has no cache that gives the same logits for prompts of different "
        "length: for every token the whole sequence is read again, which is exact, but slow for long responses"
    )
