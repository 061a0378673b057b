"""Building the model that `rlhf.policy` wraps: adapters and TRL's value head on a causal language model."""

import os
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rlhf.config import Critic, LoraConfig
from rlhf.errors import UserError
from rlhf.models import lora_adapters
from rlhf.quantization import is_quantized

if TYPE_CHECKING:
    from transformers import PreTrainedModel

POLICY_ADAPTER, CRITIC_ADAPTER = "default", "critic"


def check_head_is_last(model: "PreTrainedModel") -> None:
    """Raise UserError unless logits == lm_head(last hidden state), which `Policy` relies on."""
    ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    with torch.no_grad():
        logits = model(**inputs).logits
        ours = model.get_output_embeddings()(model.base_model(**inputs).last_hidden_state)
    if not torch.equal(logits, ours):
        raise UserError(
            f"{type(model).__name__} does more to its logits than its LM head (a soft cap, a scale); "
            "PPO would optimise other probabilities than those sampled, so it is not supported"
        )


def belongs_to_critic(parameter_name: str) -> bool:
    """Whether a parameter of the wrapper is the critic's alone: the value head, or adapters of its own."""
    return ".v_head." in parameter_name or f".{CRITIC_ADAPTER}." in parameter_name


def wrap_with_value_head(model: "PreTrainedModel", lora: LoraConfig, critic: Critic) -> Any:
    """TRL's value-head model around a PEFT model; the head says 0 everywhere until it is told or trained."""
    import peft

    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # pinned below the release that removed it
    from trl.experimental.ppo import AutoModelForCausalLMWithValueHead

    settings = lora_adapters(lora, model)
    peft_model = peft.get_peft_model(model, settings, adapter_name=POLICY_ADAPTER)
    if critic == "adapter":
        peft_model.add_adapter(CRITIC_ADAPTER, settings)
    # without device_map it warns, of a quantized model, that it will place what has its place already
    placed = {"device_map": {"": model.device}} if is_quantized(model) else {}
    wrapper = AutoModelForCausalLMWithValueHead.from_pretrained(peft_model, summary_dropout_prob=0.0, **placed)
    nn.init.zeros_(wrapper.v_head.summary.weight)
    nn.init.zeros_(wrapper.v_head.summary.bias)
    for name, parameter in wrapper.named_parameters():
        parameter.requires_grad_("lora_" in name or name.startswith("v_head."))
    return wrapper.to(model.device)
