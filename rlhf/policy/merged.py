"""The policy with its adapters merged into the weights, for decoding: a product less per layer and token."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlhf.config.checks import require
from rlhf.fast.packed import Layer, can_pack, packed
from rlhf.models.adapters import stirred
from rlhf.models.dropout import ordinary_tokens
from rlhf.models.quantization import is_quantized
from rlhf.models.rounding import is_rounding, relative_error
from rlhf.policy.policy import Policy

if TYPE_CHECKING:
    from rlhf.models.private_names import LoraLayer


def merges(policy: Policy) -> bool:
    """Whether the adapters can be merged into the weights."""
    return not obstacle(policy)


def obstacle(policy: Policy) -> str:
    """Why the adapters cannot be merged into the weights, in words; empty where they can.

    A model may not be the same with its adapters merged in: where they are on one of two tied weights, say. That is
    tried out, once, on 16 tokens, and takes a copy of the weights.
    """
    if storage_obstacle(policy):
        return storage_obstacle(policy)
    if policy.shortcuts.merges is None:
        policy.shortcuts.merges = _merging_changes_nothing(policy)
    return "" if policy.shortcuts.merges else "with them merged in the model computes something else"


def storage_obstacle(policy: Policy) -> str:
    """Why the way in which weights are stored keeps adapters from being merged into them; empty if it does not.

    The copy of a base that is divided among processes would take the memory which that saves. A quantized one would be
    quantized again, to other weights than those that are trained.
    """
    if policy.divided_trunks:
        return "the base is divided among processes, and a copy would take the memory which that saves"
    if is_quantized(policy.language_model):
        return "the base is quantized, and merged weights would be rounded once more"
    return ""


def copies(policy: Policy) -> bool:
    """Whether decoding works on a copy of weights, with the adapters (if any) merged in.

    Not where that was decided against (see `rlhf.sampling.memory`), nor where they cannot be merged.
    """
    return policy.shortcuts.copies is not False and merges(policy)


def packs(policy: Policy) -> bool:
    """Whether decoding works on packed copies of the weights."""
    return _could_pack(policy) and copies(policy)


def _could_pack(policy: Policy) -> bool:
    if not policy.fast_paths or policy.shortcuts.decoding not in (None, "fast") or autocasts(policy):
        return False
    from rlhf.fast.lora import is_plain

    are_plain = all(is_plain(layer, policy.adapter) for layer in lora_layers(policy.language_model))
    return are_plain and can_pack(policy.language_model.get_output_embeddings().weight)


def size_of_copy(policy: Policy) -> int:
    """Bytes of the weights that decoding would copy: packed ones of all linear layers, or those with adapters."""
    from rlhf.models.private_names import Conv1D

    adapted = lora_layers(policy.language_model)
    if not _could_pack(policy):
        return sum({p: p.nbytes for layer in adapted for p in _own_parameters(layer)}.values())
    parts = {part for layer in adapted for part in layer.modules()} - {layer.get_base_layer() for layer in adapted}
    linear = (m for m in policy.language_model.modules() if isinstance(m, nn.Linear | Conv1D) and m not in parts)
    return sum(layer.weight.nbytes for layer in linear)


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
    with in_eval_mode(policy), packed(merged_layers(policy.language_model, policy.adapter), n_rows):
        yield


@contextlib.contextmanager
def merged(policy: Policy) -> Iterator[None]:
    """Within this context the policy's adapters (if any) are merged into the base weights.

    Afterwards the base weights are what they were, bit for bit (subtracting the update again would not do). Where
    decoding makes no copy, the adapters stay what they are.
    """
    with _merged(policy, lora_layers(policy) if copies(policy) else []):
        yield


@contextlib.contextmanager
def _merged(policy: Policy, layers: "list[LoraLayer]") -> Iterator[None]:
    weights = {p for layer in layers for p in _own_parameters(layer)}
    originals = {weight: weight.detach().clone() for weight in weights}
    with in_eval_mode(policy):
        try:
            if layers:
                policy.wrapper.pretrained_model.merge_adapter([policy.adapter])
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
    with stirred(policy.adapters()), torch.autocast(policy.device.type, enabled=False):

        def compute() -> Tensor:
            return model(input_ids=ids, use_cache=False).logits  # in train mode, as in the update

        apart = compute()
        try:
            with _merged(policy, layers):
                together = compute()
        except Exception:  # PEFT cannot merge every kind, and says so in many ways
            return False
        return is_rounding(relative_error(together, apart), model, compute, apart)


def lora_layers(model: nn.Module) -> "list[LoraLayer]":
    """The layers with LoRA adapters."""
    from rlhf.models.private_names import LoraLayer

    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def _own_parameters(layer: "LoraLayer") -> Iterator[nn.Parameter]:
    yield from layer.get_base_layer().parameters(recurse=False)


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
def merged_layers(model: nn.Module, adapter: str | None) -> Iterator[Layer]:
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


def merged_weight(layer: "LoraLayer", adapter: str | None) -> Tensor:
    """Weight of the base with an adapter merged in, W + scaling B A: [out, in]; the base is not touched."""
    base = layer.get_base_layer().weight.data
    a, b = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    plain = base.t() if layer.fan_in_fan_out else base
    return torch.addmm(plain.to(b.dtype), b, a, alpha=layer.scaling[adapter]).to(base.dtype)
