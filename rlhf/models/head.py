"""The two halves of a causal language model: a trunk that makes features, and what makes logits of them."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from rlhf.errors import UserError, with_kind
from rlhf.maths.tensors import at_least_float32
from rlhf.models.dropout import noise_in, ordinary_tokens
from rlhf.models.rounding import relative_error, rounding_of_head
from rlhf.models.shape import text_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SOFT_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")  # Gemma 2, RecurrentGemma, xLSTM
FACTORS = ("logit_scale", "lm_head_multiplier")  # Cohere, Falcon-H1
DIVISORS = ("logits_scaling",)  # Granite
RARE = 8
"""Passes that are compared of a model which draws random numbers: a layer that is seldom skipped shows in few."""


class Head(NamedTuple):
    """logits = c tanh(s W h / c), with scale s and soft cap c; s W h without a cap. features [..., H] -> [..., V].

    Attributes:
        linear: The LM head, W h.
        scale: s.
        soft_cap: c.
    """

    linear: nn.Module
    scale: float = 1.0
    soft_cap: float | None = None

    def __call__(self, features: Tensor) -> Tensor:
        logits = self.linear(features)
        if self.is_linear:
            return logits
        logits = at_least_float32(logits) * self.scale
        return logits if self.soft_cap is None else self.soft_cap * (logits / self.soft_cap).tanh()

    @property
    def is_linear(self) -> bool:
        """Whether nothing happens to the logits after the LM head."""
        return self.scale == 1.0 and self.soft_cap is None


def head_of(model: "PreTrainedModel") -> Head:
    """The LM head with the scale and soft cap that the config names; `require_head` checks that this is all."""
    settings, scale = text_config(model), 1.0

    def named(name: str) -> float | None:
        value = getattr(settings, name, None)
        return value if isinstance(value, int | float) and value else None  # a word is the setting of somebody else

    for name in FACTORS:
        scale *= named(name) or 1.0
    for name in DIVISORS:
        scale /= named(name) or 1.0
    return Head(model.get_output_embeddings(), scale, next((cap for cap in map(named, SOFT_CAPS) if cap), None))


def trunk_of(model: "PreTrainedModel") -> nn.Module:
    """The model without its LM head."""
    return model.base_model if model.base_model is not model else model.get_decoder()


def require_head(model: "PreTrainedModel", outermost: nn.Module | None = None) -> None:
    """Raise UserError unless a model is one that PPO can train, as far as a few tokens can tell.

    In train mode logits == head(trunk(tokens)); two passes agree, so there is no dropout; a gradient comes back; and
    what a token predicts does not depend on those after it, nor on train or eval mode. Cost: three passes over 16
    tokens, one backward; eight more passes of a model that draws random numbers in train mode.

    Args:
        model: A causal language model.
        outermost: What the caller takes for the model, a PEFT wrapper for example; None is the model itself.
    """
    name, was_training = type(model).__name__, model.training
    outermost, head = outermost or model, head_of(model)
    try:
        with torch.autocast(model.device.type, enabled=False):
            found = _read(model, outermost, head)
    except Exception as error:  # each model fails in a way of its own
        raise UserError(not_on_tokens(model, error)) from error
    finally:
        outermost.train(was_training)
    if not found.logits.isfinite().all():
        raise UserError(f"the logits of {name} are not finite; look at its weights")
    if found.logits.shape == found.again.shape and not torch.equal(found.logits, found.again):
        raise UserError(noise_in(model))
    close = found.logits.shape == found.ours.shape and relative_error(found.logits, found.ours) < rounding_of_head(
        found.logits
    )
    if not close or not agree(found.traced, found.ours, head):
        raise UserError(
            f"{name} does more to its logits than its LM head, and more than its config says (a scale, a soft cap), or "
            "its adapters work from outside of it; PPO would optimize other probabilities than those sampled, so it is "
            "not supported"
        )
    if not found.has_gradient:
        raise UserError(f"the adapters of {name} have no effect on its logits; take other lora.target_modules")
    change = relative_error(found.of_beginning, found.ours[:, : found.of_beginning.shape[1]])
    if change > rounding_of_head(found.logits):
        raise UserError(
            f"what {name} predicts depends on the tokens that come after, or on eval mode (relative error "
            f"{change:.2g}); PPO needs a causal language model, so it is not supported"
        )


def not_on_tokens(model: "PreTrainedModel", error: Exception) -> str:
    """The message about a model that fails on a few tokens."""
    return f"{type(model).__name__} cannot be trained on tokens alone ({with_kind(error)[:200]})"


class Reading(NamedTuple):
    """Logits of some tokens: by the model, by its trunk and head, by the model again, and by the model where a gradient
    is asked for, as in ours; and in eval mode those of their first half, with another second half behind it."""

    logits: Tensor
    ours: Tensor
    again: Tensor
    traced: Tensor
    of_beginning: Tensor
    has_gradient: bool


def _read(model: "PreTrainedModel", outermost: nn.Module, head: Head) -> Reading:
    ids, trunk = ordinary_tokens(model), trunk_of(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    embedding = model.get_input_embeddings().weight
    if any(embedding is parameter for parameter in trained):
        trained = [embedding]  # of a model that is trained in full one gradient is enough, and takes less memory
    outermost.train()
    before = random_state(model)
    with torch.no_grad():
        logits = outermost(input_ids=ids, use_cache=False).logits
    drew = not torch.equal(random_state(model), before)
    with torch.enable_grad():
        ours = head(trunk(input_ids=ids, use_cache=False).last_hidden_state)
        gradients = torch.autograd.grad(ours.sum(), trained, allow_unused=True) if ours.requires_grad else ()
    traced = again = logits
    if not agree(logits, ours, head):  # attention may have another kernel where its mask asks for a gradient
        with torch.enable_grad():
            traced = outermost(input_ids=ids, use_cache=False).logits.detach()
    with torch.no_grad():
        for _ in range(RARE if drew else int(traced is not logits)):
            again = outermost(input_ids=ids, use_cache=False).logits if torch.equal(again, logits) else again
        outermost.eval()
        half = ids.shape[1] // 2
        others = torch.cat([ids[:, :half], ids.flip(0)[:, half:]], dim=1)  # as many, so that rounding is the same
        of_beginning = head(trunk(input_ids=others, use_cache=False).last_hidden_state[:, :half])
    has_gradient = not trained or any(gradient is not None for gradient in gradients)
    return Reading(logits, ours.detach(), again, traced, of_beginning, has_gradient)


def random_state(model: "PreTrainedModel") -> Tensor:
    """Of the generators that a model's noise, if there is any, comes from: the CPU's and that of its device."""
    states, device = [torch.get_rng_state()], model.device
    if device.type != "cpu":
        states.append(torch.get_device_module(device).get_rng_state(device))
    return torch.cat(states)


def agree(logits: Tensor, ours: Tensor, head: Head) -> bool:
    """Whether they are the same bits; where the logits are scaled or capped, the same but for rounding."""
    if logits.shape != ours.shape or not torch.isfinite(logits).all():
        return False
    if head.is_linear:
        return torch.equal(logits, ours)
    return relative_error(ours, logits) < rounding_of_head(logits)
