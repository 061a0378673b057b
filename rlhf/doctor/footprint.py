"""An estimate of the memory that a run takes at its peak, from the shapes of its model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlhf.config import PPOConfig
from rlhf.policy import LOGIT_CHUNK, Policy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FLOAT = 4
LOGIT_COPIES = 4
"""Of a block of logits, float32: the logits, their gradient, and two of the same size on the way to it."""

HEAP_LIMIT, HEAP_SLACK = 32 * 2**20, 2.1
"""On CPU blocks below 32 MiB come from glibc's heap, which holds on to what was freed between them: they take this many
times their size, as measured (docs/doctor.md)."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes that a run needs at its peak, on one process.

    Attributes:
        process: Python and its libraries; 0 on an accelerator, where they do not live.
        weights: The frozen base.
        training: Adapters and value head, their gradients, and two moments of AdamW each.
        sampling: While responses are decoded: copies of the adapted weights, key/value cache, logits.
        activations: What the backward pass needs of one micro-batch, through the trunk.
        logits: Of the same micro-batch, as far as they are alive when the activations are.
        slack: What the allocator holds on to between the activations.
    """

    process: int
    weights: int
    training: int
    sampling: int
    activations: int
    logits: int
    slack: int

    @property
    def peak(self) -> int:
        """The larger of the two phases, on top of what is always there."""
        return self.process + self.weights + self.training + max(self.sampling, self.update)

    @property
    def update(self) -> int:
        """What the update needs besides."""
        return self.activations + self.logits + self.slack


def footprint(config: PPOConfig, policy: Policy, prompt_tokens: int) -> Footprint:
    """Estimate of the peak, if the longest prompts get the longest responses."""
    model, response_tokens = policy.language_model, config.sampling.max_response_tokens
    everything = size_of([*policy.parameters(), *policy.buffers()])
    trainable = size_of([parameter for _, parameter in policy.trainable])
    on_cpu = policy.device.type == "cpu"
    process = max(0, resident() - everything) if on_cpu else 0
    rows = min(config.micro_batch_size, per_process(config, config.minibatch_size))
    n_tokens = prompt_tokens + response_tokens
    blocks = [rows * block for block in saved_by_one_row(model, n_tokens)]
    if model.is_gradient_checkpointing:
        blocks = with_checkpointing(model, blocks, rows * n_tokens)
    kept, alive = logits_of_update(model, rows * response_tokens)
    if config.uses_critic and config.critic == "adapter":
        alive = max(0, alive - sum(blocks))  # the critic's pass is differentiated first, and gone by then
        blocks = 2 * blocks
    logits = [block for block in (kept, alive - kept) if block > 0]
    return Footprint(
        process=process,
        weights=everything - trainable,
        training=4 * trainable,
        sampling=size_of_sampling(config, policy, prompt_tokens),
        activations=sum(blocks),
        logits=sum(logits),
        slack=int((HEAP_SLACK - 1) * sum(b for b in [*blocks, *logits] if b < HEAP_LIMIT)) if on_cpu else 0,
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
            model.base_model(
                input_ids=ids, use_cache=False
            )  # all of them live until it returns: no address comes twice
    finally:
        model.train(was_training)
    return list(blocks.values())


def with_checkpointing(model: "PreTrainedModel", blocks: list[int], n_tokens: int) -> list[int]:
    """What is left of the blocks: the input of every layer, and one layer's while it is computed again."""
    layers, width = model.config.num_hidden_layers, model.config.hidden_size
    one_input = n_tokens * width * model.dtype.itemsize
    return [one_input] * layers + [block // layers for block in blocks]


def logits_of_update(model: "PreTrainedModel", n_tokens: int) -> tuple[int, int]:
    """Bytes of logits that are kept for the backward pass, and at its beginning."""
    vocabulary = model.get_output_embeddings().weight.shape[0]
    chunk = max(1, LOGIT_CHUNK // vocabulary)
    if n_tokens <= chunk:
        return n_tokens * vocabulary * FLOAT, LOGIT_COPIES * n_tokens * vocabulary * FLOAT
    return 0, LOGIT_COPIES * chunk * vocabulary * FLOAT


def size_of_sampling(config: PPOConfig, policy: Policy, prompt_tokens: int) -> int:
    """Bytes while a batch is decoded: originals of the merged weights, key/value cache, one token's logits."""
    from peft.tuners.lora import LoraLayer

    model = policy.language_model
    adapted = [m.get_base_layer().weight for m in policy.modules() if isinstance(m, LoraLayer)]
    settings, rows = model.config, per_process(config, config.batch_size)
    head_width = getattr(settings, "head_dim", None) or settings.hidden_size // settings.num_attention_heads
    heads = getattr(settings, "num_key_value_heads", settings.num_attention_heads)
    tokens = prompt_tokens + config.sampling.max_response_tokens
    cache = 2 * settings.num_hidden_layers * rows * tokens * heads * head_width * model.dtype.itemsize
    vocabulary = model.get_output_embeddings().weight.shape[0]
    return size_of(adapted) + cache + 3 * rows * vocabulary * FLOAT


def per_process(config: PPOConfig, rows: int) -> int:
    """The largest share of a batch, on the number of processes that the config asks for."""
    return -(-rows // (config.processes or 1))


def size_of(tensors: list[Tensor]) -> int:
    """Bytes, shared storage counted once."""
    return sum({storage(t): t.untyped_storage().nbytes() for t in tensors}.values())


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def resident() -> int:
    """Bytes of memory that this process holds."""
    import psutil  # type: ignore[import-untyped]

    return int(psutil.Process().memory_info().rss)
