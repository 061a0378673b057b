"""The policy with its adapters merged into the weights, for decoding: a product less per layer and token."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlhf.config.checks import require
from rlhf.fast.packed import Layer, can_pack, packed
from rlhf.models.dropout import ordinary_tokens
from rlhf.models.head import relative_error, tolerance
from rlhf.models.quantization import is_quantized
from rlhf.policy.policy import Policy
from rlhf.policy.value_head import POLICY_ADAPTER

if TYPE_CHECKING:
    from rlhf.models.private_names import LoraLayer

STIR = 0.02
"""Standard deviation of what is added to the adapters for a trial: as much as the weights themselves scatter."""


def merges(policy: Policy) -> bool:
    """Whether there is anything to gain from merging, and nothing to lose.

    The copy of a base that is divided among processes would take the memory which that saves. A quantized one would be
    quantized again, to other weights than those that are trained. And a model may not be the same with its adapters
    merged in: where they are on one of two tied weights, say. That is tried out, once, on 16 tokens.
    """
    if policy.divided_blocks or is_quantized(policy.language_model):
        return False
    if policy.shortcuts.merges is None:
        policy.shortcuts.merges = _merging_changes_nothing(policy)
    return policy.shortcuts.merges


def packs(policy: Policy) -> bool:
    """Whether decoding works on packed copies of the weights."""
    if not policy.fast_paths or policy.shortcuts.decoding not in (None, "fast") or autocasts(policy):
        return False
    from rlhf.fast.lora import is_plain

    are_plain = all(is_plain(layer, POLICY_ADAPTER) for layer in lora_layers(policy.language_model))
    return are_plain and merges(policy) and can_pack(policy.language_model.get_output_embeddings().weight)


def require_mergeable(policy: Policy) -> None:
    """Raise UserError unless the policy can be sent to another engine as the weights of a model without adapters."""
    from rlhf.models.private_names import ParamWrapper

    experts = any(isinstance(layer, ParamWrapper) for layer in lora_layers(policy))
    require(
        merges(policy) and not experts,
        f"the adapters of {type(policy.language_model).__name__} cannot be merged into its weights layer by layer "
        f"({'some are on experts' if experts else 'that changes what it computes'}), which vLLM needs; take other "
        "lora.target_modules, or generation.engine: transformers",
    )


def autocasts(policy: Policy) -> bool:
    """Whether the caller has PyTorch choose the precision of each product; what is ours would not follow."""
    return torch.is_autocast_enabled(policy.device.type)


@contextlib.contextmanager
def decoding(policy: Policy, n_rows: int) -> Iterator[None]:
    """Within this context the policy decodes n_rows at a time, fast: as `merged`, on a CPU from packed weights.

    Nothing but a few tokens per row should go through the model here, and no gradient.
    """
    if not packs(policy):
        with merged(policy):
            yield
        return
    with in_eval_mode(policy), packed(merged_layers(policy.language_model, POLICY_ADAPTER), n_rows):
        yield


@contextlib.contextmanager
def merged(policy: Policy) -> Iterator[None]:
    """Within this context the policy's adapters (if any) are merged into the base weights.

    Afterwards the base weights are what they were, bit for bit (subtracting the update again would not do). Where
    nothing merges, the adapters stay what they are.
    """
    with _merged(policy, lora_layers(policy) if merges(policy) else []):
        yield


@contextlib.contextmanager
def _merged(policy: Policy, layers: "list[LoraLayer]") -> Iterator[None]:
    weights = {p for layer in layers for p in layer.get_base_layer().parameters(recurse=False)}
    originals = {weight: weight.detach().clone() for weight in weights}
    with in_eval_mode(policy):
        if layers:
            policy.wrapper.pretrained_model.merge_adapter([POLICY_ADAPTER])
        try:
            yield
        finally:
            if layers:
                policy.wrapper.pretrained_model.unmerge_adapter()
            for weight, original in originals.items():
                weight.data.copy_(original)


@torch.no_grad()
def _merging_changes_nothing(policy: Policy) -> bool:
    layers = lora_layers(policy)
    if not layers:
        return True
    ids, model = ordinary_tokens(policy.language_model), policy.language_model
    with stirred(policy), torch.autocast(policy.device.type, enabled=False):
        apart = model(input_ids=ids, use_cache=False).logits  # in train mode, as in the update
        with _merged(policy, layers):
            together = model(input_ids=ids, use_cache=False).logits
    return relative_error(together, apart) < tolerance(apart.dtype)


@contextlib.contextmanager
def stirred(policy: Policy) -> Iterator[None]:
    """Within this context the policy's adapters are away from 0, where they begin and where no mistake would show."""
    generator = torch.Generator(device=policy.device).manual_seed(0)
    parameters = policy.policy_parameters() if policy.is_peft else []
    originals = [parameter.detach().clone() for parameter in parameters]
    try:
        for p in parameters:
            p.data.add_(STIR * torch.randn(p.shape, generator=generator, device=p.device, dtype=p.dtype))
        yield
    finally:
        for parameter, original in zip(parameters, originals, strict=True):
            parameter.data.copy_(original)


def lora_layers(model: nn.Module) -> "list[LoraLayer]":
    """The layers with LoRA adapters."""
    from rlhf.models.private_names import LoraLayer

    return [module for module in model.modules() if isinstance(module, LoraLayer)]


@contextlib.contextmanager
def in_eval_mode(policy: Policy) -> Iterator[None]:
    """In train mode gradient checkpointing would keep the model from using its cache."""
    was_training = policy.training
    policy.eval()
    try:
        yield
    finally:
        policy.train(was_training)


@torch.no_grad()
def merged_layers(model: nn.Module, adapter: str) -> Iterator[Layer]:
    """Every linear layer of a model, one after the other; its weight with the adapter merged in where it has one."""
    from rlhf.models.private_names import Conv1D, LoraLayer

    adapted = lora_layers(model)
    parts = {part for layer in adapted for part in layer.modules()} - set(adapted)
    for module in model.modules():
        if isinstance(module, LoraLayer):
            yield module, merged_weight(module, adapter), module.get_base_layer().bias
        elif isinstance(module, nn.Linear | Conv1D) and type(module) in (nn.Linear, Conv1D) and module not in parts:
            weight = module.weight.data
            yield module, weight.t() if isinstance(module, Conv1D) else weight, module.bias


def merged_weight(layer: "LoraLayer", adapter: str) -> Tensor:
    """Weight of the base with an adapter merged in, W + scaling B A: [out, in]; the base is not touched."""
    base = layer.get_base_layer().weight.data
    a, b = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    plain = base.t() if layer.fan_in_fan_out else base
    return torch.addmm(plain.to(b.dtype), b, a, alpha=layer.scaling[adapter]).to(base.dtype)
