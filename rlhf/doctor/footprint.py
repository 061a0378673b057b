"""An estimate of the memory that a run takes at its peak, from the shapes of its model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlhf.config import PPOConfig
from rlhf.fast.lm_head import LOGIT_ROWS
from rlhf.models.device_memory import resident
from rlhf.models.head import trunk_of
from rlhf.models.precision import torch_dtype
from rlhf.models.shape import context_length, text_config
from rlhf.policy.branch import Branch
from rlhf.policy.merged import copies, size_of_copy
from rlhf.policy.policy import Policy
from rlhf.sampling.memory import FLOAT, cached_of_one_token, chosen_from
from rlhf.sampling.sizes import GRADIENT_AND_MOMENTS, choose_copies_for, longest_row, per_process, rows_decoded, trained
from rlhf.sampling.trial import way_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WARM_UP = 40 * 2**20
"""What the process gains in its first update besides tensors: pages of the libraries' code that runs there, their own
buffers, threads; 30 to 45 MiB were measured on a CPU."""

TRAINED_LOGITS = 4
LIVE_WHILE_READING = 3
"""Of the widest activation, without gradients: a gated MLP has both factors and their product."""
LIVE_GRADIENTS = 4
"""Of the widest activation: a gated MLP has the gradients of its product, of both factors and of the activation."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes that a run needs at its peak, on one process.

    Attributes:
        process: Python and its libraries; 0 on an accelerator, where they do not live.
        weights: The frozen base, or the reference of a model that is trained in full.
        training: Adapters (or all weights) and value head, their gradients, and two moments of AdamW each.
        engine: What vLLM reserves beside the policy, on an accelerator.
        sampling: While responses are decoded: copies of the adapted weights, key/value cache, logits.
        activations: What the backward pass needs of one micro-batch.
        logits: A block of the same micro-batch's, when all activations are there.
        gradients: Of activations, when the backward pass begins; the logits are gone by then.
    """

    process: int
    weights: int
    training: int
    engine: int = 0
    sampling: int
    activations: int
    logits: int
    gradients: int

    @property
    def peak(self) -> int:
        """The larger of the two phases, on top of what is always there."""
        return self.process + self.weights + self.training + self.engine + max(self.sampling, self.update)

    @property
    def update(self) -> int:
        """What the update needs besides: at the end of its forward pass, or at the start of its backward pass."""
        return self.activations + max(self.logits, self.gradients)


def footprint(
    config: PPOConfig, policy: Policy, prompt_tokens: int, saved: Callable[[int], list[int]] | None = None
) -> Footprint:
    """Estimate of the peak, if the longest prompts get the longest responses.

    Decides whether decoding copies the weights, where that is open, as the run would.

    Args:
        config: May ask for something else than the policy at hand: for another batch, or `merge_adapters: never`.
        policy: On its device, not trained yet.
        prompt_tokens: Of the longest prompt.
        saved: `saved_by_one_row` of the policy's model, where it has been asked before.
    """
    model = policy.language_model
    n_tokens = longest_row(config, prompt_tokens, context_length(model))
    response_tokens = n_tokens - prompt_tokens
    everything = size_of([*policy.parameters(), *policy.buffers()])
    process = max(0, resident() - everything) + WARM_UP if policy.device.type == "cpu" else 0  # before it is tried out
    if policy.shortcuts.copies is None:
        choose_copies_for(config, policy, prompt_tokens)
    way_of(policy)  # whether there is a cache
    trainable = size_of([parameter for _, parameter in policy.trainable])
    rows = min(config.micro_batch_size, per_process(config, config.mini_batch_size))
    blocks = [rows * block for block in (saved or partial(saved_by_one_row, model))(n_tokens)]
    widest = max(blocks)
    if config.model.gradient_checkpointing:
        blocks = with_checkpointing(model, blocks, rows * n_tokens)
    logits = logits_of_update(model, rows * response_tokens, with_entropy=config.entropy_coef > 0)
    of_critic = saved_by_critic(config, model, blocks)
    logits = max(0, logits - sum(of_critic))  # they are gone before the critic's activations are there
    blocks += of_critic
    return Footprint(
        process=process,
        weights=int(precision(config, policy) * (everything - trainable)),
        training=trainable + GRADIENT_AND_MOMENTS * size_of(trained(config, policy)),
        engine=size_of_engine(config, policy),
        sampling=size_of_sampling(config, policy, prompt_tokens, n_tokens, widest // (rows * n_tokens)),
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


def saved_by_critic(config: PPOConfig, model: "PreTrainedModel", blocks: list[int]) -> list[int]:
    """What is kept of the critic's way through the trunk: as much as of the policy's, of a branch the last share."""
    if not config.uses_critic or config.critic in ("shared", "detached"):
        return []
    if config.critic != "branch":
        return blocks
    branch = Branch(model, config.critic_layers)
    share = len(branch.blocks) / (len(branch.blocks) + len(branch.below))
    return blocks[len(blocks) - round(share * len(blocks)) :]


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


def size_of_sampling(config: PPOConfig, policy: Policy, prompt_tokens: int, n_tokens: int, widest_of_one: int) -> int:
    """Bytes while responses are decoded: a copy of weights, keys and values, and one token's logits of each row.

    Or activations while the prompts are read, if that is more; of samples of one prompt one is read.
    """
    rows = rows_decoded(config)
    merging = copies(policy) and config.sampling.merge_adapters != "never"
    copied = size_of_copy(policy) if rows and merging else 0
    finer = precision(config, policy)
    cache = int(finer * n_tokens * cached_of_one_token(policy))
    reading = prompt_tokens * LIVE_WHILE_READING * widest_of_one
    read = -(-rows // config.num_generations)
    return int(finer * copied) + max(rows * (cache + chosen_from(policy)), read * (cache + reading))


def size_of_engine(config: PPOConfig, policy: Policy) -> int:
    """Bytes that vLLM reserves on the device of the training."""
    generation = config.generation
    if generation.engine != "vllm" or generation.mode != "colocate" or policy.device.type != "cuda":
        return 0
    return int(generation.gpu_memory_utilization * torch.cuda.get_device_properties(policy.device).total_memory)


def precision(config: PPOConfig, policy: Policy) -> float:
    """Bytes of a base weight as the config asks for it, in those of the model at hand: 1 but where one is tried."""
    return torch_dtype(config.model.dtype).itemsize / policy.language_model.dtype.itemsize


def size_of(tensors: list[Tensor]) -> int:
    """Bytes, shared storage counted once."""
    return sum({storage(t): t.untyped_storage().nbytes() for t in tensors}.values())


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
