"""What `AutoModelForCausalLMWithValueHead` makes of a language model and of TRL's arguments before it is built."""

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rlhf.classic.weight_files import HUB_OPTIONS
from rlhf.config.checks import require
from rlhf.extras import require_extra

if TYPE_CHECKING:
    import peft

RANGE = 0.2
"""TRL's default for v_head_initializer_range."""


def with_adapters(model: Any, peft_config: "peft.PeftConfig | None") -> Any:
    """The model, with new adapters where peft_config is given and it has none.

    Raises UserError for anything but a causal model of transformers, plain or PEFT, and for prompt learning.
    """
    import peft
    from transformers import PreTrainedModel

    name = type(model).__name__
    require(
        isinstance(model, PreTrainedModel | peft.PeftModel),
        f"a {name} cannot be given a value head; pass a name, a folder, a PreTrainedModel or a PeftModel",
    )
    require(
        not getattr(model.config, "is_encoder_decoder", False),
        f"{name} is an encoder-decoder; PPO is for decoder-only models here (docs/how-to/migrate-from-trl.md)",
    )
    require(
        peft_config is None or isinstance(peft_config, peft.PeftConfig),
        f"peft_config is a {type(peft_config).__name__}; it must be a peft.PeftConfig, such as peft.LoraConfig(r=8)",
    )
    if peft_config is not None and isinstance(model, peft.PeftModel):
        warnings.warn("peft_config has no effect: the model comes with adapters of its own, which are taken")
    elif peft_config is not None:
        model = peft.get_peft_model(model, peft_config)
    learned_prompt = isinstance(model, peft.PeftModel) and model.active_peft_config.is_prompt_learning
    require(not learned_prompt, "PPO cannot train a learned prompt (prompt or prefix tuning); use a LoraConfig")
    return model


def refuse_for_loaded(model_args: tuple[Any, ...], options: dict[str, Any], reward_adapter: Any) -> None:
    """Raise UserError for what `from_pretrained` is given beside a model object and would pass to nobody.

    Options that only say where files are go on to a reward adapter; what is None or False asks for nothing.
    """
    for_files = () if reward_adapter is None else HUB_OPTIONS
    names = [name for name, value in options.items() if value not in (None, False) and name not in for_files]
    names += [repr(argument) for argument in model_args]
    require(
        not names,
        f"from_pretrained got {', '.join(names)} beside a model that is loaded already; give them to its own "
        "from_pretrained",
    )


def initialize(summary: nn.Linear, strategy: str | None, standard_deviation: float | None) -> None:
    """Draw a new value head: as PyTorch draws a linear layer, or from a normal distribution with a bias of 0."""
    require(strategy in (None, "normal"), f"v_head_init_strategy is {strategy!r}; it must be None or 'normal'")
    require(
        standard_deviation is None or strategy == "normal",
        f"v_head_initializer_range is {standard_deviation}, which has no effect without v_head_init_strategy='normal'",
    )
    if strategy == "normal":
        nn.init.normal_(summary.weight, std=RANGE if standard_deviation is None else standard_deviation)
        nn.init.zeros_(summary.bias)
    else:
        summary.reset_parameters()


def quantized(options: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Options of `from_pretrained` with load_in_8bit or load_in_4bit in the form that transformers 5 expects."""
    bits = {name: options[name] for name in ("load_in_8bit", "load_in_4bit") if options.get(name)}
    rest = {name: value for name, value in options.items() if name not in ("load_in_8bit", "load_in_4bit")}
    if not bits:
        return rest
    from transformers import BitsAndBytesConfig

    require_extra("bitsandbytes", next(iter(bits)))
    return {"device_map": {"": device}} | rest | {"quantization_config": BitsAndBytesConfig(**bits)}


def check_devices(model: Any) -> int:
    """Number of devices that a model is laid out on; raises UserError where a part of it is offloaded."""
    devices = {str(device) for device in getattr(model, "hf_device_map", {}).values()}
    require(
        "disk" not in devices and ("cpu" not in devices or len(devices) == 1),
        "the model is partly offloaded to CPU or disk, where it cannot be trained; give a device_map without offload",
    )
    return len(devices)
