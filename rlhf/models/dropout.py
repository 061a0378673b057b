"""Dropout and every other noise of training, off: PPO compares probabilities, which must not change by themselves."""

from typing import TYPE_CHECKING, Any

import torch

from rlhf.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

NOISE = ("drop", "jitter")
"""What the names of such settings have in common: attention_dropout, resid_pdrop, layerdrop, router_jitter_noise."""


def zero_noise(settings: Any) -> None:
    """Set every noise in a config to 0, in those nested in it too (of a text model in a multimodal one, say)."""
    for name, value in vars(settings).items():
        if is_noise(name, value):
            setattr(settings, name, 0.0)
        elif hasattr(value, "to_dict"):
            zero_noise(value)


def disable_dropout(model: torch.nn.Module) -> None:
    """Set every dropout probability to 0 in modules, their attributes and the configs they read at run time."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if is_noise(name, value):
                setattr(module, name, 0.0)
        config: PreTrainedConfig | None = getattr(module, "config", None)
        if hasattr(config, "to_dict"):
            zero_noise(config)


def is_noise(name: str, value: Any) -> bool:
    """Whether a setting is the strength of a noise that is not 0."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and value != 0 and any(part in name for part in NOISE)


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
    """What to say of a model that is noisy although everything that has a name was set to 0."""
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
