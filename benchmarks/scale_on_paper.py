"""How PPO with LoRA would scale, on paper: tokens per second, memory and bytes per update from counted costs.

    python benchmarks/scale_on_paper.py

Nothing here is measured on a GPU: `Machine` names what is assumed of one. Counted are the products of the frozen base
(`ppo_bench/floor.py`), what decoding reads, the gradients of the adapters, the rollout that every process receives, and
memory by the parts of `rlhf.doctor.footprint`. Every GPU has a batch of its own: n GPUs update on n * ROWS responses.
"""

from dataclasses import dataclass, replace

from ppo_bench.floor import forward, work_of_update
from ppo_bench.settings import LLAMA, Setting

from rlhf.report.tables import markdown_table
from rlhf.sampling.sizes import GRADIENT_AND_MOMENTS

ROWS, MINIBATCHES, RANK = 64, 2, 16
SHAPE = replace(LLAMA, batch=ROWS, minibatch=ROWS // MINIBATCHES, micro_batch=4, prompt_tokens=256, epochs=4)
MODELS = {
    "1B": SHAPE,
    "3B": replace(SHAPE, layers=28, hidden=3072, heads=24),
    "8B": replace(SHAPE, layers=32, hidden=4096, feed_forward=14336),
}
"""The shapes of Llama 3.2 and 3.1, in bfloat16 with gradient checkpointing; adapters are float32."""
UNTIED = ("8B",)
"""Models whose embedding is not their LM head."""
GPUS = (1, 8, 64)
HALF, FLOAT, DOUBLE, WORD = 2, 4, 8, 8
TEXT = 4
"""Bytes of text per token, of prompt and response."""
PER_TOKEN = 1 + 6 * FLOAT
"""Of a response, in the rollout: a mask, log-probabilities of policy, reference and sampler, entropy, value, KL."""


@dataclass(frozen=True)
class Machine:
    """What is assumed of a cluster of H100 SXM, in operations or bytes per second.

    Attributes:
        flops: Dense bfloat16 products, by the data sheet.
        utilization: Share of that which passes over whole sequences reach.
        memory: Reads of weights and caches while decoding: 60% of the data sheet's.
        block_seconds: What Python and kernel launches take per block and decoding step, at the least.
        nvlink: All-reduce among the GPUs of a node.
        network: The same among nodes: 400 Gbit/s each.
        node: GPUs of one.
        unpickling: Rollouts of the other processes, on one core: measured, on a CPU.
    """

    flops: float = 989e12
    utilization: float = 0.35
    memory: float = 0.6 * 3.35e12
    block_seconds: float = 0.5e-3
    nvlink: float = 300e9
    network: float = 50e9
    node: int = 8
    unpickling: float = 67e6


@dataclass(frozen=True)
class Update:
    """One update of one GPU among several: seconds of its phases, and bytes that it sends or receives."""

    decoding: float
    passes: float
    gradients: float
    rollout: float
    gradient_bytes: float
    rollout_bytes: float

    @property
    def seconds(self) -> float:
        return self.decoding + self.passes + self.gradients + self.rollout


def adapters(shape: Setting) -> int:
    """Parameters of LoRA on all linear layers: rank times inputs and outputs of each."""
    h, inner, kv = shape.hidden, shape.feed_forward, shape.hidden * shape.kv_heads // shape.heads
    layers = [(h, h), (h, kv), (h, kv), (h, h), (h, inner), (h, inner), (inner, h)]
    return RANK * shape.layers * sum(k + n for k, n in layers)


def weights(shape: Setting) -> int:
    """Parameters of the base that a decoding step reads: blocks and LM head."""
    h, kv = shape.hidden, shape.hidden * shape.kv_heads // shape.heads
    block = 2 * h * h + 2 * h * kv + 3 * h * shape.feed_forward
    return shape.layers * block + h * shape.vocabulary


def cached_of_one_token(shape: Setting) -> int:
    """Bytes of keys and values, all blocks."""
    return 2 * shape.layers * HALF * shape.hidden * shape.kv_heads // shape.heads


def memory(shape: Setting, tied: bool, merged: bool) -> int:
    """Bytes of one GPU at the peak: weights, adapters, and the larger of sampling and update."""
    tokens, h = shape.prompt_tokens + shape.response_tokens, shape.hidden
    blocks = weights(shape) - h * shape.vocabulary
    sampling = HALF * blocks * merged + ROWS * tokens * cached_of_one_token(shape)
    sampling += ROWS * shape.vocabulary * (HALF + FLOAT + DOUBLE)
    one_block = 8 * h + 4 * shape.feed_forward  # of a token: what autograd keeps of a block that is computed again
    activations = HALF * shape.micro_batch * tokens * (shape.layers * h + one_block)
    base = HALF * (weights(shape) + (0 if tied else h * shape.vocabulary))
    return base + (1 + GRADIENT_AND_MOMENTS) * FLOAT * adapters(shape) + max(sampling, activations)


def decoding_step(shape: Setting, machine: Machine) -> float:
    """Seconds for the next token of all rows, halfway through the response: reading, or launching the kernels."""
    cached = ROWS * (shape.prompt_tokens + shape.response_tokens / 2) * cached_of_one_token(shape)
    reading = (HALF * weights(shape) + cached) / machine.memory
    return max(reading, machine.block_seconds * shape.layers)


def update(shape: Setting, n: int, machine: Machine) -> Update:
    """What one update takes on each of n GPUs, if no phase overlaps another."""
    work = work_of_update(shape, [shape.response_tokens] * ROWS, "shared")
    again = shape.epochs * forward(shape, [shape.prompt_tokens + shape.response_tokens - 1] * ROWS)  # checkpointing
    steps = shape.epochs * MINIBATCHES
    gradient_bytes = steps * FLOAT * adapters(shape)
    link = machine.nvlink if n <= machine.node else machine.network
    row = (WORD + TEXT) * (shape.prompt_tokens + shape.response_tokens) + PER_TOKEN * shape.response_tokens
    rollout_bytes = (n - 1) * ROWS * row
    return Update(
        decoding=shape.response_tokens * decoding_step(shape, machine),
        passes=(work.tokens + again + work.head) / (machine.utilization * machine.flops),
        gradients=2 * (n - 1) / n * gradient_bytes / link,
        rollout=rollout_bytes / machine.unpickling,
        gradient_bytes=gradient_bytes if n > 1 else 0,
        rollout_bytes=rollout_bytes,
    )


def main() -> None:
    rows = []
    for name, shape in MODELS.items():
        gib = [memory(shape, name not in UNTIED, merged) / 2**30 for merged in (False, True)]
        for n in GPUS:
            took = update(shape, n, Machine())
            shares = [took.decoding, took.passes, took.gradients + took.rollout]
            rows.append(
                [
                    name,
                    str(n),
                    f"{n * ROWS * shape.response_tokens / took.seconds:,.0f}",
                    f"{took.seconds:.1f}",
                    " / ".join(f"{100 * seconds / took.seconds:.0f}" for seconds in shares),
                    " / ".join(f"{each:.1f}" for each in gib),
                    f"{took.gradient_bytes / 1e9:.2f}",
                    f"{took.rollout_bytes / 1e6:.0f}",
                ]
            )
    columns = ["model", "GPUs", "response tokens/s", "s per update", "% decoding / passes / exchange"]
    print(markdown_table([*columns, "GiB in place / merged", "GB of gradients", "MB of rollout"], rows))


if __name__ == "__main__":
    main()
