"""What both sides are given to do."""

from dataclasses import dataclass, replace
from typing import Literal

Critic = Literal["shared", "branch", "adapter"]
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A model shape and one PPO update on it.

    Attributes:
        architecture: gpt2, llama or qwen3.
        layers: Transformer blocks.
        hidden: Width H.
        heads: Attention heads.
        kv_heads: Heads of keys and values; as many as `heads` in GPT-2.
        feed_forward: Inner width of the MLP; 4 H in GPT-2.
        vocabulary: Size V.
        batch: Responses per update.
        prompt_tokens: Tokens of every prompt.
        response_tokens: Tokens of every response, or of the longest possible one.
        shortest_response: Lengths are uniform from here to `response_tokens`; None makes all responses full length.
        epochs: Passes over the rollout.
        minibatch: Responses per optimizer step.
        micro_batch: Responses per forward pass of the update.
        num_generations: Of ours; TRL samples one response to each.
        gradient_checkpointing: On both sides.
    """

    architecture: Literal["gpt2", "llama", "qwen3"] = "gpt2"
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocabulary: int
    batch: int
    prompt_tokens: int
    response_tokens: int
    shortest_response: int | None = None
    epochs: int
    minibatch: int
    micro_batch: int
    num_generations: int = 1
    gradient_checkpointing: bool = False

    @property
    def full_length(self) -> "Setting":
        """The same work with no response shorter than the longest."""
        return replace(self, shortest_response=None)


A = Setting(
    layers=4,
    hidden=256,
    heads=4,
    kv_heads=4,
    feed_forward=1024,
    vocabulary=2048,
    batch=32,
    prompt_tokens=32,
    response_tokens=64,
    epochs=4,
    minibatch=32,
    micro_batch=32,
)
B = Setting(
    layers=12,
    hidden=768,
    heads=12,
    kv_heads=12,
    feed_forward=3072,
    vocabulary=50257,
    batch=8,
    prompt_tokens=32,
    response_tokens=48,
    epochs=2,
    minibatch=8,
    micro_batch=8,
)
RAGGED = replace(A, shortest_response=8, micro_batch=8)
LLAMA = Setting(
    architecture="llama",
    layers=16,
    hidden=2048,
    heads=32,
    kv_heads=8,
    feed_forward=8192,
    vocabulary=128256,
    batch=32,
    prompt_tokens=128,
    response_tokens=256,
    epochs=2,
    minibatch=32,
    micro_batch=8,
)
LLAMA_ON_CPU = replace(LLAMA, layers=2, batch=8, prompt_tokens=32, epochs=1, minibatch=8, micro_batch=8)
QWEN3 = Setting(
    architecture="qwen3",
    layers=8,
    hidden=512,
    heads=8,
    kv_heads=4,
    feed_forward=1664,
    vocabulary=6400,
    batch=8,
    prompt_tokens=32,
    response_tokens=64,
    epochs=2,
    minibatch=8,
    micro_batch=8,
)
MODEL = replace(B, architecture="llama", vocabulary=49152)
MODELS = {
    2: replace(MODEL, layers=4, hidden=192, heads=3, kv_heads=1, feed_forward=512, vocabulary=2048),
    35: replace(MODEL, layers=18, hidden=384, heads=6, kv_heads=2, feed_forward=1024, vocabulary=16384),
    135: replace(MODEL, layers=30, hidden=576, heads=9, kv_heads=3, feed_forward=1536),
    360: replace(MODEL, layers=32, hidden=960, heads=15, kv_heads=5, feed_forward=2560),
}
"""By millions of weights; 135 and 360 are the shapes of SmolLM2."""
TINY = replace(A, layers=2, hidden=32, heads=2, kv_heads=2, feed_forward=128, vocabulary=64, batch=4, minibatch=4)
TINY = replace(TINY, micro_batch=4, prompt_tokens=6, response_tokens=8, epochs=2)

NAMES = ("a", "b", "llama", "qwen3", "ragged", "tiny")


def setting(name: str, on_gpu: bool) -> Setting:
    """The setting with that name; two layers of Llama-3.2-1B stand for all sixteen where there is no GPU."""
    llama = LLAMA if on_gpu else LLAMA_ON_CPU
    return {"a": A, "b": B, "llama": llama, "qwen3": QWEN3, "ragged": RAGGED, "tiny": TINY}[name]
