"""From what TRL's trainer was given to what this project's update works on."""

import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlhf.classic.config import PPOConfig
from rlhf.classic.kl import AdaptiveKLController, FixedKLController
from rlhf.classic.methods import Methods
from rlhf.classic.reference import create_reference_model
from rlhf.classic.update import StepEpochs, StepTrainer
from rlhf.config.checks import require
from rlhf.errors import UserError
from rlhf.fast.install import install
from rlhf.models.dropout import disable_dropout
from rlhf.models.head import require_head
from rlhf.parallel.launch import join_processes, require_data_parallel
from rlhf.policy.own_reference import require_own_reference
from rlhf.policy.policy import Policy

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.utils.data import DataLoader
    from transformers import PreTrainedModel

NOT_APPLIED = {
    "mixed_precision": "load the model with dtype=torch.bfloat16; adapters and value head may stay in float32",
    "gradient_accumulation_steps": "set PPOConfig.gradient_accumulation_steps",
    "gradient_accumulation_plugin": "set PPOConfig.gradient_accumulation_steps",
    "deepspeed_plugin": "every process keeps the whole model",
    "fsdp_plugin": "every process keeps the whole model",
    "megatron_lm_plugin": "every process keeps the whole model",
    "dynamo_backend": "compile the model yourself",
    "dynamo_plugin": "compile the model yourself",
    "log_with": "set PPOConfig.log_with",
    "project_config": "set PPOConfig.project_kwargs",
}
"""Arguments of Accelerator that the update does not go by, and what to do instead."""


def build_accelerator(config: PPOConfig) -> "Accelerator":
    """Accelerate with the trackers that the config names.

    Raises UserError where the launcher would divide the model, have each process train on its own, or compute in
    another precision than the model's.
    """
    from accelerate import Accelerator
    from accelerate.utils import GradientAccumulationPlugin, ProjectConfiguration

    require_data_parallel("the classic loop")
    join_processes(None)
    for name, value in config.accelerator_kwargs.items():
        advice = NOT_APPLIED.get(name)
        require(
            advice is None or value in (None, "no"), f"accelerator_kwargs {name}={value!r} is not applied: {advice}"
        )
    accelerator = Accelerator(
        log_with=config.log_with,
        project_config=ProjectConfiguration(**config.project_kwargs),
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=config.gradient_accumulation_steps, sync_with_dataloader=False
        ),
        **{name: value for name, value in config.accelerator_kwargs.items() if name not in NOT_APPLIED},
    )
    require(
        accelerator.mixed_precision == "no",
        f"accelerate was told mixed_precision {accelerator.mixed_precision!r}, which is not applied: "
        f"{NOT_APPLIED['mixed_precision']}, and launch with --mixed_precision no",
    )
    if config.log_with is not None:
        settings = {name: value for name, value in config.to_dict().items() if isinstance(value, int | float | str)}
        accelerator.init_trackers(config.tracker_project_name, config=settings, init_kwargs=config.tracker_kwargs)
    accelerator.register_save_state_pre_hook(refuse_state)
    accelerator.register_load_state_pre_hook(refuse_state)
    return accelerator


def refuse_state(*given: Any) -> None:
    """Raise UserError: accelerate has the optimizer and no model, whose weights would be missing without a word."""
    raise UserError(
        "accelerator.save_state and load_state would leave out the model, which accelerate does not hold here; save it "
        "with trainer.save_pretrained(folder) and load it with AutoModelForCausalLMWithValueHead.from_pretrained"
    )


def reference_of(model: Any, ref_model: Any, num_shared_layers: int | None) -> Any:
    """The reference: the one that is given, a copy of a plain model, or None for a PEFT model, its adapters off."""
    require(
        hasattr(model, "v_head") and not hasattr(model, "is_encoder_decoder"),
        f"model is a {type(model).__name__}; PPOTrainer needs a causal model with a value head: "
        "AutoModelForCausalLMWithValueHead.from_pretrained takes a name, a folder or a model",
    )
    if ref_model is not None or hasattr(model.pretrained_model, "peft_config"):
        if num_shared_layers is not None:
            warnings.warn("num_shared_layers has no effect: there is a reference already, which shares what it shares")
        return ref_model
    return create_reference_model(model, num_shared_layers)


def build_policy(config: PPOConfig, model: Any, ref_model: Any, accelerator: "Accelerator") -> Policy:
    """Policy, critic and reference, the same on all processes."""
    policy = Policy(model, "shared", None if ref_model is None else reference_network(ref_model, model))
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


def replace_reference(policy: Policy, ref_model: Any) -> None:
    """Compare the policy with another model from now on; None is a PEFT model's own base."""
    if ref_model is None:
        require(
            policy.is_peft, "ref_model is None, but the model has no adapters to turn off; give a frozen copy of it"
        )
        require_own_reference(policy.wrapper.pretrained_model, policy.trainable)
        policy.frozen_reference = None
        return
    reference = reference_network(ref_model, policy.wrapper).requires_grad_(False).eval()
    disable_dropout(reference)
    install(reference, reference)
    require_head(reference)
    policy.frozen_reference = reference.to(policy.device)


def reference_network(ref_model: Any, model: Any) -> "PreTrainedModel":
    """The language model of a reference; raises UserError if it is none, or the one that is trained."""
    from transformers import PreTrainedModel

    reference = causal_lm(ref_model)
    require(
        isinstance(reference, PreTrainedModel),
        f"ref_model is {ref_model!r}; it must be a model: AutoModelForCausalLMWithValueHead.from_pretrained loads one"
        if isinstance(ref_model, str | Path)
        else f"ref_model is a {type(ref_model).__name__}; it must be a causal language model, or None",
    )
    require(
        reference is not causal_lm(model),
        "ref_model has the weights of model itself and would be trained with it; pass create_reference_model(model), "
        "or None",
    )
    return reference


def causal_lm(model: Any) -> "PreTrainedModel":
    """The language model inside TRL's or PEFT's wrappers; a plain one as it is."""
    model = getattr(model, "pretrained_model", model)
    return model.get_base_model() if hasattr(model, "peft_config") else model


def build_native(methods: Methods, policy: Policy) -> StepTrainer:
    """The trainer whose update is behind each step."""
    config, accelerator = methods.config, methods.accelerator
    native = StepTrainer(
        config.to_native(accelerator.num_processes),
        policy,
        methods.tokenizer,
        reward_fn=None,  # type: ignore[arg-type]  # scores come with each step
        prompts=None,  # type: ignore[arg-type]  # and so do queries
        shuffler=torch.Generator().manual_seed(config.seed),
        accelerator=accelerator,
    )
    native.epochs = StepEpochs(native.config, policy, native.ranks, native.shuffler)
    native.methods = native.epochs.methods = methods
    native.kl_controller = FixedKLController(config.init_kl_coef)
    if config.adap_kl_ctrl:
        native.kl_controller = AdaptiveKLController(config.init_kl_coef, config.target, config.horizon)
    return native


def prepared_optimizer(
    optimizer: Any, config: PPOConfig, policy: Policy, accelerator: "Accelerator"
) -> torch.optim.Optimizer:
    """The caller's optimizer, or TRL's: Adam in one parameter group; in accelerate's wrapper.

    Raises UserError if it has none of the parameters that are trained.
    """
    trained = [parameter for _, parameter in policy.trainable]
    if optimizer is None:
        optimizer = torch.optim.Adam(trained, lr=config.learning_rate)
    theirs = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    require(
        any(id(parameter) in theirs for parameter in trained),
        "optimizer has none of the parameters that are trained; make it of the model that PPOTrainer is given, "
        "adapters and all",
    )
    return accelerator.prepare_optimizer(optimizer, device_placement=hasattr(optimizer, "state_dict"))


def bare(optimizer: Any) -> Any:
    """An optimizer without accelerate's wrapper."""
    from rlhf.models.private_names import AcceleratedOptimizer

    return optimizer.optimizer if isinstance(optimizer, AcceleratedOptimizer) else optimizer


def build_dataloader(
    config: PPOConfig, dataset: Any, collator: Callable[..., Any] | None, model: Any, accelerator: "Accelerator"
) -> "DataLoader":
    """Batches of batch_size rows, an incomplete last one left out; shuffled, unless the rows come as a stream."""
    columns = getattr(dataset, "column_names", None)
    if config.remove_unused_columns and columns and hasattr(dataset, "remove_columns"):
        used = {*inspect.signature(model.forward).parameters, "label", "query", "response"}
        unused = [name for name in columns if name not in used]
        if unused:
            warnings.warn(f"dataset columns {', '.join(unused)} are left out; remove_unused_columns=False keeps them")
            dataset = dataset.remove_columns(unused)
    is_stream = not hasattr(dataset, "__len__")
    n_rows, needed = 0 if is_stream else len(dataset), config.batch_size * accelerator.num_processes
    require(
        is_stream or n_rows >= needed,
        f"dataset has {n_rows} rows, fewer than batch_size {config.batch_size} for each of the processes "
        f"({accelerator.num_processes}), so that there would be no batch; lower batch_size, or give {needed} rows",
    )
    if is_stream:
        warnings.warn(
            "dataset is a stream and comes in its own order; shuffle it with dataset.shuffle(buffer_size=...)"
        )
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=config.batch_size, shuffle=None if is_stream else True, drop_last=True, collate_fn=collator
    )
    if not is_stream:
        return accelerator.prepare(loader)
    from rlhf.models.private_names import prepare_data_loader

    # each process reads the stream itself; to hand out batches, accelerate would want tensors and nothing else
    return prepare_data_loader(
        loader,
        accelerator.device,
        accelerator.num_processes,
        accelerator.process_index,
        put_on_device=True,
        dispatch_batches=False,
    )
