"""From what TRL's trainer was given to what this project's update works on."""

import inspect
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from rlhf.classic.batch import StepTrainer, TokenRewards
from rlhf.classic.config import PPOConfig
from rlhf.config.checks import require
from rlhf.parallel.launch import join_processes, require_data_parallel
from rlhf.policy.policy import Policy

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.utils.data import DataLoader
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def build_accelerator(config: PPOConfig) -> "Accelerator":
    """Accelerate with the trackers that the config names.

    Raises UserError where the launcher would divide the model, or have each process train on its own.
    """
    from accelerate import Accelerator
    from accelerate.utils import ProjectConfiguration

    join_processes(None)
    require_data_parallel("the classic loop")
    project = ProjectConfiguration(**config.project_kwargs)
    accelerator = Accelerator(log_with=config.log_with, project_config=project, **config.accelerator_kwargs)
    if config.log_with is not None:
        settings = {name: value for name, value in config.to_dict().items() if isinstance(value, int | float | str)}
        accelerator.init_trackers(config.tracker_project_name, config=settings, init_kwargs=config.tracker_kwargs)
    return accelerator


def build_policy(config: PPOConfig, model: Any, ref_model: Any, accelerator: "Accelerator") -> Policy:
    """Policy, critic and reference, the same on all processes.

    Without ref_model the reference is a copy of a plain model, or a PEFT model's base with its adapters off.
    """
    from rlhf.classic.model import create_reference_model

    require(
        hasattr(model, "v_head") and not hasattr(model, "is_encoder_decoder"),
        f"model is a {type(model).__name__}; PPOTrainer needs a causal model with a value head: "
        "AutoModelForCausalLMWithValueHead.from_pretrained takes a name, a folder or a model",
    )
    if ref_model is None and not hasattr(model.pretrained_model, "peft_config"):
        ref_model = create_reference_model(model)
    reference = None if ref_model is None else causal_lm(ref_model)
    require(
        reference is not causal_lm(model),
        "ref_model has the weights of model itself and would be trained with it; pass create_reference_model(model), "
        "or None",
    )
    policy = Policy(model, "shared", reference)
    require(
        bool(policy.policy_parameters()),
        "no weight of the model can be trained, only its value head; load adapters with is_trainable=True",
    )
    if not hasattr(model.pretrained_model, "hf_device_map"):
        policy.to(accelerator.device)
    if config.gradient_checkpointing:
        policy.language_model.gradient_checkpointing_enable({"use_reentrant": False})
    if accelerator.num_processes > 1:  # each process drew its own new value head and adapters
        for _, parameter in policy.trainable:
            torch.distributed.broadcast(parameter.data, src=0)
    return policy


def build_native(
    config: PPOConfig,
    policy: Policy,
    tokenizer: "PreTrainedTokenizerFast",
    accelerator: "Accelerator",
) -> StepTrainer:
    """The trainer whose update is behind each step."""
    return StepTrainer(
        config.to_native(accelerator.num_processes),
        policy,
        tokenizer,
        reward_fn=None,  # type: ignore[arg-type]  # scores come with each step
        prompts=None,  # type: ignore[arg-type]  # and so do queries
        shuffler=torch.Generator().manual_seed(config.seed),
        accelerator=accelerator,
        callbacks=[TokenRewards()],
    )


def causal_lm(model: Any) -> "PreTrainedModel":
    """The language model inside TRL's or PEFT's wrappers; a plain one as it is."""
    model = getattr(model, "pretrained_model", model)
    return model.get_base_model() if hasattr(model, "peft_config") else model


def build_dataloader(
    config: PPOConfig, dataset: Any, collator: Callable[..., Any] | None, model: Any, accelerator: "Accelerator"
) -> "DataLoader":
    """Shuffled batches of batch_size rows, an incomplete last one left out."""
    if config.remove_unused_columns and hasattr(dataset, "remove_columns"):
        used = {*inspect.signature(model.forward).parameters, "label", "query", "response"}
        unused = [name for name in dataset.column_names if name not in used]
        if unused:
            warnings.warn(f"dataset columns {', '.join(unused)} are left out; remove_unused_columns=False keeps them")
        dataset = dataset.remove_columns(unused)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=config.batch_size, shuffle=True, drop_last=True, collate_fn=collator
    )
    return accelerator.prepare(loader)


class GivenOptimizer:
    """The caller's optimizer as the clipped epochs use one: policy and critic as groups, the learning rate its own.

    Args:
        optimizer: Of the caller; it, or a scheduler on it, decides on the learning rates.
        policy: Whose gradients are clipped by group.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, policy: Policy) -> None:
        self.optimizer = optimizer
        self.param_groups = [
            {"params": parameters, "peak_lr": 0.0}
            for parameters in (policy.policy_parameters(), policy.critic_parameters())
        ]

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    def step(self) -> None:
        self.optimizer.step()
