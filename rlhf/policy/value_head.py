"""A causal language model with a value head, and building the one that `rlhf.policy.policy` wraps."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlhf.config import Critic, LoraConfig
from rlhf.config.checks import require
from rlhf.errors import UserError
from rlhf.models.load import lora_adapters

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
            "PPO would optimize other probabilities than those sampled, so it is not supported"
        )


def belongs_to_critic(parameter_name: str) -> bool:
    """Whether a parameter of the wrapper is the critic's alone: the value head, or adapters of its own."""
    return ".v_head." in parameter_name or f".{CRITIC_ADAPTER}." in parameter_name


class ValueHead(nn.Module):
    """V = w h + b in the type of its weights, 0 until it is told or trained: features [..., H] -> values [..., 1].

    Args:
        hidden_size: H.
        dropout: Share of the features that train mode sets to 0.
    """

    def __init__(self, hidden_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.summary = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.summary.weight)
        nn.init.zeros_(self.summary.bias)

    def forward(self, features: Tensor) -> Tensor:
        return self.summary(self.dropout(features.to(self.summary.weight)))


class ValueHeadModel(nn.Module):
    """A causal language model, plain or PEFT, and a value head, by the names that TRL gave them.

    Args:
        pretrained_model: A PreTrainedModel or PeftModel.
        dropout: Of the value head.

    Raises UserError for a model without an LM head.
    """

    def __init__(self, pretrained_model: Any, dropout: float = 0.0) -> None:
        super().__init__()
        lm_head = pretrained_model.get_output_embeddings()
        require(lm_head is not None, f"{type(pretrained_model).__name__} has no LM head; PPO needs one to sample from")
        self.pretrained_model = pretrained_model
        self.is_peft_model = hasattr(pretrained_model, "peft_config")
        self.v_head = ValueHead(lm_head.weight.shape[-1], dropout).to(lm_head.weight.device)

    def forward(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        return_past_key_values: bool = False,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Logits [B, L, V] in float32, the loss where `labels` are given (else None), and values [B, L].

        Args:
            input_ids: [B, L].
            past_key_values: The cache of the tokens before.
            attention_mask: [B, L], 1 at real tokens.
            return_past_key_values: Also return the cache, as a fourth item.
            kwargs: For the language model.
        """
        output = self.pretrained_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            **kwargs | {"output_hidden_states": True, "return_dict": True},
        )
        values = self.v_head(output.hidden_states[-1]).squeeze(-1)
        results = (output.logits.float(), output.loss, values)
        return (*results, output.past_key_values) if return_past_key_values else results

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """What the language model's `generate` returns."""
        return self.pretrained_model.generate(*args, **kwargs)


def wrap_with_value_head(model: "PreTrainedModel", lora: LoraConfig, critic: Critic) -> ValueHeadModel:
    """New adapters and a new value head around a causal language model; nothing but them is trained."""
    import peft

    settings = lora_adapters(lora, model)
    peft_model = peft.get_peft_model(model, settings, adapter_name=POLICY_ADAPTER)
    if critic == "adapter":
        peft_model.add_adapter(CRITIC_ADAPTER, settings)
    wrapper = ValueHeadModel(peft_model)
    for name, parameter in wrapper.named_parameters():
        parameter.requires_grad_("lora_" in name or name.startswith("v_head."))
    return wrapper.to(model.device)
