"""Building the model that `rlhf.policy.policy` wraps: adapters and a value head on a causal language model."""

import dataclasses
import warnings
from typing import TYPE_CHECKING

from torch import Tensor, nn

from rlhf.config import Critic, LoraConfig
from rlhf.errors import UserError, first_line
from rlhf.models.load import lora_adapters

if TYPE_CHECKING:
    import peft
    from peft import PeftModel
    from transformers import PreTrainedModel

POLICY_ADAPTER, CRITIC_ADAPTER = "default", "critic"


def belongs_to_critic(parameter_name: str) -> bool:
    """Whether a parameter of the wrapper is the critic's alone: the value head, or adapters of its own."""
    return ".v_head." in parameter_name or f".{CRITIC_ADAPTER}." in parameter_name


class ValueHead(nn.Module):
    """V = w h + b in the type of its weights, 0 until it is told or trained: features [..., H] -> values [..., 1]."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.summary = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.summary.weight)
        nn.init.zeros_(self.summary.bias)

    def forward(self, features: Tensor) -> Tensor:
        return self.summary(features.to(self.summary.weight.dtype))


class ValueHeadModel(nn.Module):
    """A PEFT model and a value head, by the names that TRL's AutoModelForCausalLMWithValueHead gives them.

    Theirs cannot be imported without their trainers, nor these without pandas, pyarrow and wandb: 100 MiB and a second
    that a run has no use for.
    """

    def __init__(self, pretrained_model: "PeftModel", lora: LoraConfig, critic_lora: LoraConfig) -> None:
        super().__init__()
        self.pretrained_model, self.lora, self.critic_lora = pretrained_model, lora, critic_lora
        self.v_head = ValueHead(pretrained_model.get_output_embeddings().weight.shape[-1])


def wrap_with_value_head(
    model: "PreTrainedModel", lora: LoraConfig, critic: Critic, critic_lora: LoraConfig | None = None
) -> ValueHeadModel:
    """New adapters and a new value head around a causal language model; nothing but them is trained.

    The critic's adapters, if it has any, are like the policy's unless critic_lora says what else.

    Raises UserError where PEFT has no adapters for a layer that is named.
    """
    import peft

    settings = lora_adapters(lora, model)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*keys did not match any targeted")  # patterns of PEFT's own
            peft_model = peft.get_peft_model(model, settings, adapter_name=POLICY_ADAPTER)
            if critic == "adapter":
                peft_model.add_adapter(
                    CRITIC_ADAPTER, settings if critic_lora is None else resized(settings, critic_lora)
                )
    except (ValueError, TypeError, NotImplementedError) as error:
        raise UserError(f"cannot put adapters on {type(model).__name__} ({first_line(error)})") from error
    wrapper = ValueHeadModel(peft_model, lora, critic_lora or lora)
    for name, parameter in wrapper.named_parameters():
        parameter.requires_grad_("lora_" in name or name.startswith("v_head."))
    return wrapper.to(model.device)


def resized(settings: "peft.LoraConfig", lora: LoraConfig) -> "peft.LoraConfig":
    """The same adapters with the rank and scale of others."""
    return dataclasses.replace(settings, r=lora.r, lora_alpha=lora.alpha)
