"""The arithmetic floor: multiplications that PPO on one trunk cannot do without, at the rate this machine does them.

Counted are the matrix products of the frozen base: the rollout with a cache, the reference, the old log-probabilities,
and for each epoch a forward pass and a backward pass for the gradient of the activations (the weights have none). Not
counted: adapters, value head, norms, softmax, sampling, loading and storing.
"""

import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NamedTuple

import torch
from torch import Tensor

from ppo_bench.settings import Critic, Setting
from rlhf.fast.packed import can_pack, packed

MAX_ROWS = 1024  # of a measured product: more rows do not change the rate
GPU_PEAK_SIZE = 8192


class Work(NamedTuple):
    """Floating-point operations of one update by kind of product; a multiplication and an addition are two.

    Attributes:
        tokens: Linear layers of the trunk over whole sequences, and attention.
        decoding: The same for one token of each response at a time.
        head: LM head over whole responses.
        head_decoding: LM head for one token of each response at a time.
    """

    tokens: float
    decoding: float
    head: float
    head_decoding: float


def work_of_update(setting: Setting, lengths: list[int], critic: Critic) -> Work:
    """FLOPs of one update whose responses have these lengths; the last token of a response is never an input."""
    prompts = [setting.prompt_tokens] * len(lengths)
    sequences = [setting.prompt_tokens + length - 1 for length in lengths]
    prefill, whole = forward(setting, prompts), forward(setting, sequences)
    head = 2 * setting.hidden * setting.vocabulary * sum(lengths)
    trunks = 1 + blocks_of_critic(setting, critic) / setting.layers
    return Work(
        tokens=prefill + (1 + trunks) * whole + setting.epochs * trunks * (whole + backward(setting, sequences)),
        decoding=whole - prefill,
        head=2 * head + setting.epochs * 2 * head,
        head_decoding=head,
    )


def blocks_of_critic(setting: Setting, critic: Critic) -> int:
    """Blocks of the base that a critic with adapters of its own goes through once more."""
    return {"shared": 0, "branch": max(1, round(setting.layers / 4)), "adapter": setting.layers}[critic]


def forward(setting: Setting, lengths: list[int]) -> float:
    """FLOPs of the trunk on sequences of these lengths."""
    linear = 2 * setting.layers * sum(k * n for k, n in layer_shapes(setting))
    return linear * sum(lengths) + attention(setting, lengths)


def backward(setting: Setting, lengths: list[int]) -> float:
    """FLOPs of its gradient with respect to the activations; the input of the first layer needs none."""
    first = 2 * setting.hidden * query_key_value(setting) * sum(lengths)
    return forward(setting, lengths) - first + attention(setting, lengths)  # attention has two gradients per product


def layer_shapes(setting: Setting) -> list[tuple[int, int]]:
    """Inputs and outputs of the linear layers of one block."""
    h, inner = setting.hidden, setting.feed_forward
    mlp = [(h, inner), (inner, h)] if setting.architecture == "gpt2" else [(h, inner), (h, inner), (inner, h)]
    return [(h, query_key_value(setting)), (h, h), *mlp]


def query_key_value(setting: Setting) -> int:
    """Width of queries, keys and values together."""
    return setting.hidden + 2 * setting.hidden * setting.kv_heads // setting.heads


def attention(setting: Setting, lengths: list[int]) -> float:
    """FLOPs of causal attention, scores and weighted sums, over sequences of these lengths."""
    pairs = sum(length * (length + 1) / 2 for length in lengths)
    return 4 * setting.layers * setting.hidden * pairs


def rates(setting: Setting, dtype: str, by_processor: bool) -> Work:
    """FLOPs per second of each kind, on the shapes that occur; the weights stay in the cache, as in no decoding."""
    rows = min(MAX_ROWS, setting.micro_batch * (setting.prompt_tokens + setting.response_tokens))
    head_rows = min(MAX_ROWS // 4, setting.micro_batch * setting.response_tokens)
    head = [(setting.hidden, setting.vocabulary)]
    layers = layer_shapes(setting)

    def rate(rows: int, shapes: list[tuple[int, int]], backward: bool) -> float:
        seconds = sum(product_seconds(rows, k, n, dtype, backward, by_processor) for k, n in shapes)
        return sum(2 * rows * k * n for k, n in shapes) * (2 if backward else 1) / seconds

    return Work(
        tokens=rate(rows, layers, backward=True),
        decoding=rate(setting.batch, layers, backward=False),
        head=rate(head_rows, head, backward=True),
        head_decoding=rate(setting.batch, head, backward=False),
    )


def product_seconds(rows: int, k: int, n: int, dtype: str, backward: bool, by_processor: bool) -> float:
    """Seconds of [rows, k] @ [k, n], with the gradient of its input if asked for; weights stored in the best way."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, weight, y = (torch.randn(s, dtype=getattr(torch, dtype), device=device) for s in ((rows, k), (n, k), (rows, n)))

    def product(weight: Tensor) -> Callable[[], object]:
        return lambda: (x @ weight.T, y @ weight) if backward else x @ weight.T

    times = [best_seconds(product(stored), by_processor) for stored in (weight, weight.T.contiguous().T)]
    if not backward and can_pack(weight):
        layer = torch.nn.Linear(k, n, bias=False, dtype=weight.dtype)
        with torch.inference_mode(), packed([(layer, weight, None)], rows):
            times.append(best_seconds(lambda: layer(x), by_processor))
    return min(times)


def best_seconds(call: Callable[[], object], by_processor: bool) -> float:
    """The least disturbed of several calls."""
    clock = time.process_time if by_processor else time.perf_counter
    times = []
    for _ in range(6):
        started = clock()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(clock() - started)
    return min(times[1:])


def measure_rates(setting: Setting, dtype: str, threads: int, by_processor: bool, connection: Connection) -> None:
    """Main function of a process: the rates, whenever they are asked for."""
    torch.set_num_threads(threads)
    while True:
        connection.send(rates(setting, dtype, by_processor))
        if not connection.recv():
            return


def gpu_peak() -> float:
    """FLOPs per second of a large bfloat16 product."""
    size = GPU_PEAK_SIZE
    seconds = product_seconds(size, size, size, "bfloat16", backward=False, by_processor=False)
    return 2 * size**3 / seconds
