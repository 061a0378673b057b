"""A causal language model with a value head, and building the one that `rlhf.policy.policy` wraps."""

import copy
import dataclasses
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlhf.config import WITH_ADAPTERS, Critic, LoraConfig
from rlhf.config.checks import require
from rlhf.errors import UserError, first_line
from rlhf.models.head import trunk_of
from rlhf.models.load import lora_adapters
from rlhf.policy.branch import Branch

if TYPE_CHECKING:
    import peft
    from transformers import PreTrainedModel

POLICY_ADAPTER, CRITIC_ADAPTER = "default", "critic"


def check_precision(model: "PreTrainedModel", trained: list[nn.Parameter]) -> None:
    """Raise UserError for a model in float16, warn of weights that are trained in bfloat16.

    Without a scaled loss the gradients of float16 vanish, and its Adam divides by an epsilon of 0. In bfloat16 a step
    of less than 1/512 of a weight leaves it as it is.
    """
    if torch.float16 in {model.dtype, *(p.dtype for p in trained)}:
        raise UserError(
            f"{type(model).__name__} is in float16, in which gradients vanish and Adam divides by 0; load it with "
            "dtype=torch.bfloat16 and adapters, or in float32"
        )
    n = sum(p.numel() for p in trained if p.dtype == torch.bfloat16)
    if n:
        warnings.warn(
            f"{n} weights are trained in bfloat16, where steps below 1/512 of a weight are lost to rounding; load the "
            "model in float32, or train adapters",
            stacklevel=4,
        )


def belongs_to_critic(parameter_name: str) -> bool:
    """Whether a parameter of the wrapper is the critic's alone: the value head, adapters or a trunk of its own."""
    return any(f".{part}." in parameter_name for part in ("v_head", "critic_trunk", CRITIC_ADAPTER))


def policy_adapter(model: Any, critic: Critic) -> str | None:
    """Name of the adapters that are trained as the policy's: those that are active; None for a model without any.

    Where the critic's are active, the only other ones.

    Raises UserError where the critic's are missing, or the policy's have their name, are merged into the weights or
    depend on what the prompt says (aLoRA), which PEFT's wrapper has to find out for each batch.
    """
    names = getattr(model, "peft_config", {})
    require(
        critic not in WITH_ADAPTERS or CRITIC_ADAPTER in names,
        f"critic is {critic!r}, but the model has no adapter called {CRITIC_ADAPTER!r}; use shared or detached",
    )
    if not names:
        return None
    from rlhf.models.private_names import BaseTunerLayer

    active, others = model.active_adapter, [name for name in names if name != CRITIC_ADAPTER]
    if active == CRITIC_ADAPTER and critic in WITH_ADAPTERS and len(others) == 1:
        [active] = others
    require(isinstance(active, str), f"adapters {active} are active at once; choose one with set_adapter")
    invoked = getattr(names[active], "alora_invocation_tokens", None)
    require(not invoked, f"adapter {active!r} has alora_invocation_tokens, which PPO cannot train; use LoRA without")
    require(active != CRITIC_ADAPTER, f"the policy's adapter is called {active!r}, a name kept for the critic's")
    is_merged = any(module.merged for module in model.modules() if isinstance(module, BaseTunerLayer))
    require(not is_merged, f"the adapter {active!r} is merged into the weights; call unmerge_adapter() before training")
    return str(active)


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

    `critic_trunk` is the critic's own trunk, if it has one.

    Args:
        pretrained_model: A PreTrainedModel or PeftModel.
        dropout: Of the value head.

    Raises UserError for a model without an LM head.
    """

    def __init__(self, pretrained_model: Any, dropout: float = 0.0, critic_trunk: Any = None) -> None:
        super().__init__()
        lm_head = pretrained_model.get_output_embeddings()
        require(lm_head is not None, f"{type(pretrained_model).__name__} has no LM head; PPO needs one to sample from")
        self.pretrained_model, self.critic_trunk = pretrained_model, critic_trunk
        self.lora: LoraConfig | None = None
        self.critic_lora: LoraConfig | None = None
        self.branch: Branch | None = None
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


def wrap_with_value_head(
    model: "PreTrainedModel",
    lora: LoraConfig,
    critic: Critic,
    critic_lora: LoraConfig | None = None,
    critic_layers: int | None = None,
) -> ValueHeadModel:
    """New adapters and a new value head around a causal language model; nothing but them is trained.

    The critic's adapters, if it has any, are like the policy's unless critic_lora says what else; those of a branch are
    on the last critic_layers blocks (None: a quarter).

    Raises UserError where PEFT has no adapters for a layer that is named, where none would be the critic's, and as
    `Branch` does.
    """
    import peft

    settings = lora_adapters(lora, model)
    branch = Branch(model, critic_layers) if critic == "branch" else None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*keys did not match any targeted")  # patterns of PEFT's own
            peft_model = peft.get_peft_model(model, settings, adapter_name=POLICY_ADAPTER)
            if critic in WITH_ADAPTERS:
                peft_model.add_adapter(CRITIC_ADAPTER, resized(settings, critic_lora or lora))
            if branch is not None:
                branch.keep_only_here(peft_model, CRITIC_ADAPTER)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise UserError(f"cannot put adapters on {type(model).__name__} ({first_line(error)})") from error
    if critic in WITH_ADAPTERS:
        require_adapters_of_critic(model, lora, critic, branch)
    wrapper = ValueHeadModel(peft_model)
    wrapper.lora, wrapper.critic_lora, wrapper.branch = lora, critic_lora or lora, branch
    for name, parameter in wrapper.named_parameters():
        parameter.requires_grad_("lora_" in name or name.startswith("v_head."))
    return wrapper.to(model.device)


def require_adapters_of_critic(
    model: "PreTrainedModel", lora: LoraConfig, critic: Critic, branch: Branch | None
) -> None:
    """Raise UserError unless the critic has adapters where its value comes through: in the branch, or in the trunk."""
    parts = [trunk_of(model)] if branch is None else list(branch.blocks)
    where = "trunk" if branch is None else f"branch (critic_layers: {branch.n_blocks})"
    require(
        any(CRITIC_ADAPTER in name.split(".") for part in parts for name, _ in part.named_parameters()),
        f"lora.target_modules is {lora.target_modules!r}, none of which is in the {where}, so that "
        f"critic: {critic} has no adapters; name layers there, or use critic: detached",
    )


def wrap_in_full(model: "PreTrainedModel", critic: Critic, trunk: nn.Module | None = None) -> ValueHeadModel:
    """A new value head on a causal language model all of whose weights are trained; if separate on a trunk of its own,
    which is a copy unless one is given."""
    if critic == "separate" and trunk is None:
        trunk = copy.deepcopy(trunk_of(model))
    return ValueHeadModel(model, critic_trunk=trunk).requires_grad_(True).to(model.device)


def resized(settings: "peft.LoraConfig", lora: LoraConfig) -> "peft.LoraConfig":
    """The same adapters with the rank and scale of others."""
    return dataclasses.replace(settings, r=lora.r, lora_alpha=lora.alpha)
