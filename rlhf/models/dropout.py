"""Dropout and every other noise of training, off: PPO compares probabilities, which must not change by themselves."""

from typing import TYPE_CHECKING, Any

import torch

from rlhf.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

DROPOUT, JITTER = "drop", "jitter"
"""What the names of such settings have in common: attention_dropout, resid_pdrop, layerdrop; router_jitter_noise."""


STRENGTHS = ("p", "prob", "rate")
"""What the strength may be called in a module whose class has it in its name."""


def zero_dropout(settings: Any) -> None:
    """Set every dropout in a config to 0, in those nested in it too (of a text model in a multimodal one, say)."""
    for name, value in list(vars(settings).items()):
        if is_set(name, value, DROPOUT):
            setattr(settings, name, 0.0)
        elif isinstance(value, dict):
            zero_entries(value)
        elif hasattr(value, "to_dict"):
            zero_dropout(value)


def zero_entries(settings: dict[str, Any], all_of_them: bool = False) -> None:
    """Likewise in a dict, as remote code nests its configs; all_of_them: PEFT's, by the name of an adapter."""
    for name, value in settings.items():
        if isinstance(value, float) and (all_of_them or DROPOUT in str(name)):
            settings[name] = 0.0
        elif isinstance(value, dict):
            zero_entries(value)


def disable_dropout(model: torch.nn.Module) -> None:
    """Turn off the noise of train mode: dropout is 0 in modules, attributes and the configs that they read at run time.

    A router with jitter stays in eval mode: Phi's reads the strength of its jitter there too, for something else.
    """
    from rlhf.models.private_names import DropoutNd

    for module in model.modules():
        if isinstance(module, DropoutNd):
            module.p = 0.0
        is_dropout = DROPOUT in type(module).__name__.lower()
        for name, value in list(vars(module).items()):
            if is_set(DROPOUT if is_dropout and name in STRENGTHS else name, value, DROPOUT):
                setattr(module, name, 0.0)
            elif isinstance(value, dict) and DROPOUT in name:
                zero_entries(value, all_of_them=True)
            if is_set(name, value, JITTER):
                keep_in_eval_mode(module)
        config: PreTrainedConfig | None = getattr(module, "config", None)
        if hasattr(config, "to_dict"):
            zero_dropout(config)


def is_set(name: str, value: Any, kind: str) -> bool:
    """Whether a setting is the strength of a kind of noise, and not 0."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and value != 0 and kind in name


def keep_in_eval_mode(module: torch.nn.Module) -> None:
    """Let a module (not those in it) ignore train mode; its class becomes one of its own for that."""
    own_class = type(module)
    if not isinstance(vars(own_class).get("training"), property):
        always = {"training": property(lambda self: False, lambda self, value: None)}
        module.__class__ = type(own_class.__name__, (own_class,), always)


@torch.no_grad()
def require_no_noise(model: "PreTrainedModel") -> None:
    """Raise UserError unless two passes in train mode give the same logits, bit for bit."""
    ids = ordinary_tokens(model)
    was_training = model.training
    model.train()
    first, second = (model(input_ids=ids, use_cache=False).logits for _ in range(2))
    model.train(was_training)
    if not torch.equal(first, second):
        raise UserError(noise_in(model))


def noise_in(model: torch.nn.Module) -> str:
    """The message about a model that is noisy although every named dropout was set to 0."""
    return (
        f"{type(model).__name__} gives other logits for the same tokens when asked twice in train mode (dropout that "
        "is in none of its settings?); PPO would take that noise for a change of the policy, so it is not supported"
    )


def ordinary_tokens(model: "PreTrainedModel", rows: int = 2, length: int = 8) -> torch.Tensor:
    """Random token ids [rows, length], the same every time, without those that the config gives a role of their own."""
    special = {value for name, value in flat(model.config.to_dict()) if "token" in str(name) and isinstance(value, int)}
    vocabulary = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(vocabulary, generator=generator)[: rows * length + len(special)].tolist()
    ids = [token for token in order if token not in special] or [0]
    return torch.tensor((ids * rows * length)[: rows * length], device=model.device).view(rows, length)


def flat(settings: dict[str, Any]) -> list[tuple[str, Any]]:
    """Names and values of a config and of those nested in it."""
    nested = [flat(value) for value in settings.values() if isinstance(value, dict)]
    return list(settings.items()) + [item for items in nested for item in items]
