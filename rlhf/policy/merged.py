"""The policy with its adapters folded into the weights, for decoding: a product less per layer and token."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlhf.fast.packed import Layer, can_pack, packed
from rlhf.models.quantization import is_quantized
from rlhf.policy.policy import Policy
from rlhf.policy.value_head import POLICY_ADAPTER

if TYPE_CHECKING:
    from rlhf.models.private_names import LoraLayer


def folds(policy: Policy) -> bool:
    """Whether there is anything to gain from folding, and nothing to lose.

    The copy of a base that is divided among processes would take the memory which that saves. A quantized one would be
    quantized again, to other weights than those that are trained.
    """
    return not policy.divided_blocks and not is_quantized(policy.language_model)


def packs(policy: Policy) -> bool:
    """Whether decoding works on packed copies of the weights."""
    return policy.fast_paths and folds(policy) and can_pack(policy.language_model.get_output_embeddings().weight)


@contextlib.contextmanager
def decoding(policy: Policy, n_rows: int) -> Iterator[None]:
    """Within this context the policy decodes n_rows at a time, fast: as `merged`, on a CPU from packed weights.

    Nothing but a few tokens per row should go through the model here, and no gradient.
    """
    if not packs(policy):
        with merged(policy):
            yield
        return
    with in_eval_mode(policy), packed(folded_layers(policy.language_model, POLICY_ADAPTER), n_rows):
        yield


@contextlib.contextmanager
def merged(policy: Policy) -> Iterator[None]:
    """Within this context the policy's adapters (if any) are folded into the base weights.

    Afterwards the base weights are what they were, bit for bit (subtracting the update again would not do). Where
    nothing folds, the adapters stay what they are.
    """
    from rlhf.models.private_names import LoraLayer

    layers = [m for m in policy.modules() if isinstance(m, LoraLayer)] if folds(policy) else []
    originals = [layer.get_base_layer().weight.detach().clone() for layer in layers]
    with in_eval_mode(policy):
        if layers:
            policy.wrapper.pretrained_model.merge_adapter([POLICY_ADAPTER])
        try:
            yield
        finally:
            if layers:
                policy.wrapper.pretrained_model.unmerge_adapter()
            for layer, original in zip(layers, originals, strict=True):
                layer.get_base_layer().weight.data.copy_(original)


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
def folded_layers(model: nn.Module, adapter: str) -> Iterator[Layer]:
    """Every linear layer of a model, one after the other; its weight with the adapter folded in where it has one."""
    from rlhf.models.private_names import Conv1D, LoraLayer

    adapted = [module for module in model.modules() if isinstance(module, LoraLayer)]
    parts = {part for layer in adapted for part in layer.modules()} - set(adapted)
    for module in model.modules():
        if isinstance(module, LoraLayer):
            yield module, folded_weight(module, adapter), module.get_base_layer().bias
        elif isinstance(module, nn.Linear | Conv1D) and module not in parts:
            weight = module.weight.data
            yield module, weight.t() if isinstance(module, Conv1D) else weight, module.bias


def folded_weight(layer: "LoraLayer", adapter: str) -> Tensor:
    """Weight of the base with an adapter folded in, W + scaling B A: [out, in]; the base is not touched."""
    base = layer.get_base_layer().weight.data
    a, b = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    plain = base.t() if layer.fan_in_fan_out else base
    return torch.addmm(plain.to(b.dtype), b, a, alpha=layer.scaling[adapter]).to(base.dtype)
