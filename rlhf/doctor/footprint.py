"""An estimate of the memory that a run takes at its peak, from the shapes of its model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlhf.config import PPOConfig
from rlhf.fast.lm_head import LOGIT_ROWS
from rlhf.models.head import trunk_of
from rlhf.models.shape import text_config
from rlhf.policy.merged import in_eval_mode, packs
from rlhf.policy.policy import Policy
from rlhf.sampling.batch import DecodingBatch
from rlhf.sampling.trial import way_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FLOAT, DOUBLE = 4, 8
WARM_UP = 40 * 2**20
"""What the process gains in its first update besides tensors: pages of the libraries' code that runs there, their own
buffers, threads; 30 to 45 MiB were measured on a CPU."""

TRAINED_LOGITS = 4
LIVE_GRADIENTS = 4
"""Of the widest activation: a gated MLP has the gradients of its product, of both factors and of the activation."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes that a run needs at its peak, on one process.

    Attributes:
        process: Python and its libraries; 0 on an accelerator, where they do not live.
        weights: The frozen base, or the reference of a model that is trained in full.
        training: Adapters (or all weights) and value head, their gradients, and two moments of AdamW each.
        sampling: While responses are decoded: copies of the adapted weights, key/value cache, logits.
        activations: What the backward pass needs of one micro-batch.
        logits: A block of the same micro-batch's, when all activations are there.
        gradients: Of activations, when the backward pass begins; the logits are gone by then.
    """

    process: int
    weights: int
    training: int
    sampling: int
    activations: int
    logits: int
    gradients: int

    @property
    def peak(self) -> int:
        """The larger of the two phases, on top of what is always there."""
        return self.process + self.weights + self.training + max(self.sampling, self.update)

    @property
    def update(self) -> int:
        """What the update needs besides: at the end of its forward pass, or at the start of its backward pass."""
        return self.activations + max(self.logits, self.gradients)


def footprint(config: PPOConfig, policy: Policy, prompt_tokens: int) -> Footprint:
    """Estimate of the peak, if the longest prompts get the longest responses."""
    model, response_tokens = policy.language_model, config.sampling.max_new_tokens
    everything = size_of([*policy.parameters(), *policy.buffers()])
    process = max(0, resident() - everything) + WARM_UP if policy.device.type == "cpu" else 0  # before it is tried out
    trainable = size_of([parameter for _, parameter in policy.trainable])
    rows = min(config.micro_batch_size, per_process(config, config.mini_batch_size))
    n_tokens = prompt_tokens + response_tokens
    blocks = [rows * block for block in saved_by_one_row(model, n_tokens)]
    widest = max(blocks)
    if model.is_gradient_checkpointing:
        blocks = with_checkpointing(model, blocks, rows * n_tokens)
    logits = logits_of_update(model, rows * response_tokens, with_entropy=config.entropy_coef > 0)
    if config.uses_critic and config.critic in ("adapter", "separate"):
        logits = max(0, logits - sum(blocks))  # they are gone before the critic's activations are there
        blocks = 2 * blocks
    return Footprint(
        process=process,
        weights=everything - trainable,
        training=4 * trainable,
        sampling=size_of_sampling(config, policy, prompt_tokens),
        activations=sum(blocks) + saved_by_head(model, rows * response_tokens, with_entropy=config.entropy_coef > 0),
        logits=logits,
        gradients=LIVE_GRADIENTS * widest,
    )


def saved_by_one_row(model: "PreTrainedModel", n_tokens: int) -> list[int]:
    """Bytes of each block that autograd keeps of one sequence's way through the trunk: measured, by sending one."""
    weights = {storage(p) for p in model.parameters()}
    blocks: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if storage(tensor) not in weights:
            blocks[storage(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    was_training = model.training
    model.eval()  # in train mode gradient checkpointing would hide them
    try:
        ids = torch.zeros(1, n_tokens, dtype=torch.long, device=model.device)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            trunk_of(model)(input_ids=ids, use_cache=False)  # all live until it returns: no address comes twice
    finally:
        model.train(was_training)
    return list(blocks.values())


def with_checkpointing(model: "PreTrainedModel", blocks: list[int], n_tokens: int) -> list[int]:
    """What is left of the blocks: the input of every layer, and one layer's while it is computed again."""
    layers, width = text_config(model).num_hidden_layers, model.get_input_embeddings().weight.shape[1]
    one_input = n_tokens * width * model.dtype.itemsize
    return [one_input] * layers + [block // layers for block in blocks]


def logits_of_update(model: "PreTrainedModel", n_tokens: int, with_entropy: bool) -> int:
    """Bytes of logits that are alive together, and with them their derivatives by the entropy if it has a gradient.

    Where the head is trained the logits, their logarithms and the gradients of both are, all in float32.
    """
    head = model.get_output_embeddings().weight
    if head.requires_grad:
        return TRAINED_LOGITS * min(n_tokens, LOGIT_ROWS) * len(head) * FLOAT
    return (1 + with_entropy) * min(n_tokens, LOGIT_ROWS) * len(head) * head.dtype.itemsize


def saved_by_head(model: "PreTrainedModel", n_tokens: int, with_entropy: bool) -> int:
    """Bytes that the LM head keeps in place of logits: gradients of the features, by log-probability and entropy."""
    head = model.get_output_embeddings().weight
    return (1 + with_entropy) * n_tokens * head.shape[1] * head.dtype.itemsize


def size_of_sampling(config: PPOConfig, policy: Policy, prompt_tokens: int) -> int:
    """Bytes while a batch is decoded: a second copy of weights, key/value cache, one token's logits."""
    model, rows = policy.language_model, per_process(config, config.batch_size)
    cache = rows * (prompt_tokens + config.sampling.max_new_tokens) * cached_of_one_token(policy)
    # of one token the logits, their probabilities in float32, and the sums of these in float64
    one_token = len(model.get_output_embeddings().weight) * (model.dtype.itemsize + FLOAT + DOUBLE)
    return copied_weights(policy) + cache + rows * one_token


@torch.no_grad()
def cached_of_one_token(policy: Policy) -> int:
    """Bytes of the key/value cache that one token takes: measured, by reading two. 0 for a model that needs none."""
    way = way_of(policy)
    if way == "uncached":
        return 0
    with in_eval_mode(policy):
        batch = DecodingBatch(policy.language_model, [[0, 0]], 0, 0, way)
        batch.read_prompts()
    states = [getattr(layer, name, None) for layer in batch.cache.layers for name in ("keys", "values")]
    return sum(x.nbytes // x.shape[2] for x in states if torch.is_tensor(x) and x.ndim == 4)


def copied_weights(policy: Policy) -> int:
    """Bytes of the weights that decoding copies: packed ones of all linear layers, or those with adapters."""
    from rlhf.models.private_names import Conv1D, LoraLayer

    adapted = [module.get_base_layer() for module in policy.modules() if isinstance(module, LoraLayer)]
    if not packs(policy):
        return size_of([layer.weight for layer in adapted])
    linear = [module for module in policy.language_model.modules() if isinstance(module, torch.nn.Linear | Conv1D)]
    return sum(layer.weight.nbytes for layer in linear if not (policy.is_peft and layer.weight.requires_grad))


def per_process(config: PPOConfig, rows: int) -> int:
    """The largest share of a batch, on the number of processes that the config asks for."""
    return -(-rows // (config.num_processes or 1))


def size_of(tensors: list[Tensor]) -> int:
    """Bytes, shared storage counted once."""
    return sum({storage(t): t.untyped_storage().nbytes() for t in tensors}.values())


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def resident() -> int:
    """Bytes of memory that this process holds."""
    import psutil  # type: ignore[import-untyped]

    return int(psutil.Process().memory_info().rss)
