"""Whether a PEFT model with its adapters off is a reference: the model that PPO begins from, and one that stays."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlhf.errors import UserError
from rlhf.models.dropout import ordinary_tokens
from rlhf.models.head import head_of, trunk_of

if TYPE_CHECKING:
    from peft import PeftModel

SPLITS = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin in which PEFT takes from the base's weights what it puts into the adapters."""
PASS_ONE = "pass ref_model=create_reference_model(model), a frozen copy"


def require_own_reference(peft_model: "PeftModel | Any", trained: list[tuple[str, nn.Parameter]]) -> None:
    """Raise UserError where the model with its adapters off changes in training, or is not where training begins.

    Biases beside adapters (bias="all"), or an embedding that was unfrozen, are trained in the base itself. Cost: a pass
    over 16 tokens.
    """
    for name, settings in peft_model.peft_config.items():
        how = getattr(settings, "init_lora_weights", None)
        if isinstance(how, str) and how.lower().startswith(SPLITS):
            raise UserError(
                f"init_lora_weights of the adapter {name!r} is {how!r}, which takes a part of the base's weights away: "
                f"with its adapters off, the model is no reference; {PASS_ONE}, or take another way to begin"
            )
    moving = _trained_without_adapters(peft_model, trained)
    if moving:
        raise UserError(
            f"{moving} is trained and is no adapter's: with its adapters off, the model would not stay the reference; "
            f'freeze it (bias="none", requires_grad_(False)), or {PASS_ONE}'
        )


def _trained_without_adapters(peft_model: Any, trained: list[tuple[str, nn.Parameter]]) -> str | None:
    """The first parameter that a gradient reaches while the adapters are off."""
    model = peft_model.get_base_model()
    try:
        with peft_model.disable_adapter(), torch.enable_grad():
            left = [(name, parameter) for name, parameter in trained if parameter.requires_grad]
            logits = head_of(model)(trunk_of(model)(input_ids=ordinary_tokens(model), use_cache=False)[0])
            reached: tuple[Tensor | None, ...] = (None,) * len(left)
            if logits.requires_grad and left:
                reached = torch.autograd.grad(logits.sum(), [parameter for _, parameter in left], allow_unused=True)
    finally:
        for _, parameter in trained:
            parameter.requires_grad_(True)
    return next((name for (name, _), gradient in zip(left, reached, strict=True) if gradient is not None), None)
