"""The fast paths of SFT and reward models, around TRL's trainers: the same loss in fewer operations and less memory."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutput

from rlhf.fast.install import install
from rlhf.fast.token_loss import token_loss
from rlhf.models.dropout import ordinary_tokens
from rlhf.models.head import Head, agree, head_of, trunk_of
from rlhf.models.rounding import relative_error, rounding_of_head
from rlhf.stages.by_length import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Forward = Callable[..., Any]
UNDERSTOOD = {"input_ids", "attention_mask", "labels", "num_items_in_batch", "use_cache", "fused_lm_head"}
"""Inputs of a forward pass with a loss; with any other it is the model's own."""


@dataclass
class LossOutput(CausalLMOutput):
    """What TRL's `compute_loss` reads of a model that makes no logits: 1.12 the first four, 1.16 the others.

    Attributes:
        loss: Mean over the labels.
        num_correct_tokens: Labels that are the most probable token.
        num_valid_tokens: Labels.
        entropy_sum: NaN: nobody reads it, and it would cost a pass over the vocabulary.
        log_probs: Their sum over the labels; TRL adds up whatever is there.
        label_mask: [B, L] where there is a label.
        is_top1: `num_correct_tokens`.
        entropy: `entropy_sum`.
    """

    num_correct_tokens: Tensor | None = None
    num_valid_tokens: Tensor | None = None
    entropy_sum: Tensor | None = None
    log_probs: Tensor | None = None
    label_mask: Tensor | None = None
    is_top1: Tensor | None = None
    entropy: Tensor | None = None


@contextlib.contextmanager
def fast_forward(model: nn.Module) -> Iterator[None]:
    """Within this context a language model computes its loss, or a reward model its scores, the fast way.

    The layers are those of PPO (`rlhf.fast.install`). Rows have to be padded on the right, if at all: a causal model
    reads them without a mask, since what comes after a token does not matter to it and nothing is read off padding. An
    LM head makes its logits where there is a label, block by block. What does not look causal, or does more to its
    logits than its LM head and its config say, keeps its own forward pass.
    """
    base: PreTrainedModel = model.get_base_model() if hasattr(model, "peft_config") else model  # type: ignore
    install(model, base)
    plain = base.forward
    if is_causal(base):
        base.forward = _without_mask(plain) if base.get_output_embeddings() is None else _with_token_loss(base, plain)
    try:
        yield
    finally:
        base.forward = plain


def _without_mask(plain: Forward) -> Forward:
    def forward(**inputs: Any) -> Any:
        return plain(**inputs | {"attention_mask": None})

    return forward


def _with_token_loss(model: "PreTrainedModel", plain: Forward) -> Forward:
    """A forward pass with the output that TRL's own has for its default loss.

    loss = -sum log p(label) / num_items_in_batch, over the labels of this batch that are not IGNORED; without
    num_items_in_batch their mean.
    """
    head = head_of(model)
    if type(head.linear) is not nn.Linear or not makes_the_logits(model, head):
        return plain

    def forward(**inputs: Any) -> Any:
        labels = inputs.get("labels")
        if labels is None or any(value is not None for name, value in inputs.items() if name not in UNDERSTOOD):
            return plain(**inputs)
        is_label = labels[:, 1:] != IGNORED
        rows, before = is_label.nonzero(as_tuple=True)  # the position that predicts each label
        features = trunk_of(model)(input_ids=inputs["input_ids"], use_cache=False).last_hidden_state
        total, hits = token_loss(features[rows, before], labels[rows, before + 1], head)
        n_labels, hits, unknown = is_label.sum(), hits.float(), torch.full_like(total, torch.nan).detach()
        n_items = inputs.get("num_items_in_batch")
        return LossOutput(
            loss=total / (n_labels.clamp(min=1) if n_items is None else n_items),
            num_correct_tokens=hits,
            num_valid_tokens=n_labels,
            entropy_sum=unknown,
            log_probs=-total,
            label_mask=is_label,
            is_top1=hits,
            entropy=unknown,
        )

    return forward


@torch.no_grad()
def is_causal(model: "PreTrainedModel") -> bool:
    """Whether what a model makes of a token is the same with other tokens behind it, as far as a few can tell."""
    ids, trunk = ordinary_tokens(model), trunk_of(model)
    half = ids.shape[1] // 2
    others = torch.cat([ids[:, :half], ids.flip(0)[:, half:]], dim=1)
    one, other = (trunk(input_ids=rows, use_cache=False).last_hidden_state[:, :half] for rows in (ids, others))
    return relative_error(other, one) <= rounding_of_head(one)


@torch.no_grad()
def makes_the_logits(model: "PreTrainedModel", head: Head) -> bool:
    """Whether a model's logits are what its head makes of its last hidden states."""
    ids = ordinary_tokens(model)
    ours = head(trunk_of(model)(input_ids=ids, use_cache=False).last_hidden_state)
    return agree(model(input_ids=ids, use_cache=False).logits, ours, head)
