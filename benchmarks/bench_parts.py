"""Where the time of an optimizer step goes: shares of processor time by kind of operation, from torch.profiler.

    python benchmarks/bench_parts.py [--setting a|b] [--dtype fp32|bf16] [--threads 1] [--steps 4]

Forward pass, clipped losses and backward pass of one minibatch in a setting of bench_ppo.py (full-length
responses, critic: shared), without the optimizer. The last line is JSON.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from ppo_bench.model import random_model
from ppo_bench.settings import DTYPES, Setting, setting
from torch.profiler import ProfilerActivity, profile

from rlhf.cli import quiet_libraries
from rlhf.config import LoraConfig
from rlhf.maths.losses import clipped_policy_loss, clipped_value_loss
from rlhf.policy.policy import Policy
from rlhf.report.tables import markdown_table

RANK = 16
PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm")
NAMES = {
    "attention": "attention",
    "gelu": "activation",
    "silu": "activation",
    "norm": "norms",
}
"""Part of an operation's name: where it belongs, whatever its shape."""


class Operation(NamedTuple):
    """What the profiler saw of one operation on tensors of one shape."""

    name: str
    shapes: Sequence[Sequence[int]]
    calls: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--setting", choices=("a", "b"), default="a")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(arguments.threads)
    chosen = setting(arguments.setting, on_gpu=False)
    parts = shares(profiled(chosen, DTYPES[arguments.dtype], arguments.steps), chosen.vocabulary)
    print(markdown_table(["part", "share"], [[name, f"{share:.1%}"] for name, share in parts.items()]))
    print(json.dumps(parts))


def profiled(chosen: Setting, dtype: str, steps: int) -> list[Operation]:
    """Every operation of some steps, after two that do not count."""
    torch.manual_seed(0)
    policy = Policy.with_lora(random_model(chosen).to(getattr(torch, dtype)), LoraConfig(r=RANK), "shared")
    for _ in range(2):
        step(policy, chosen)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        for _ in range(steps):
            step(policy, chosen)
    events: Any = profiler.key_averages(group_by_input_shape=True)
    return [Operation(e.key, [s for s in e.input_shapes if s], e.count, e.self_cpu_time_total / 1e6) for e in events]


def step(policy: Policy, chosen: Setting) -> None:
    """One minibatch, forward and backward."""
    n_rows, n_prompt, n_response = chosen.micro_batch, chosen.prompt_tokens, chosen.response_tokens
    sequence_ids = torch.randint(1, chosen.vocabulary, (n_rows, n_prompt + n_response))
    mask = torch.ones(n_rows, n_response, dtype=torch.bool)
    now = policy(sequence_ids, torch.full((n_rows,), n_prompt), mask)
    ones = torch.ones_like(now.logprobs)
    policy_loss, _ = clipped_policy_loss(now.logprobs, now.logprobs.detach(), ones, mask, 0.2)
    value_loss, _ = clipped_value_loss(now.values, now.values.detach(), ones, mask, 0.2)
    (policy_loss + value_loss).backward()
    policy.zero_grad(set_to_none=True)


def shares(operations: Iterable[Operation], vocabulary: int) -> dict[str, float]:
    """Share of the time by part, the largest first."""
    seconds: dict[str, float] = {}
    for operation in operations:
        name = part(operation, vocabulary)
        seconds[name] = seconds.get(name, 0.0) + operation.seconds
    total = sum(seconds.values())
    return {name: seconds[name] / total for name in sorted(seconds, key=lambda name: -seconds[name])}


def part(operation: Operation, vocabulary: int) -> str:
    """Which part of the step an operation belongs to, by its name or by the sizes of what it works on."""
    sizes = {size for shape in operation.shapes for size in shape}
    if operation.name in PRODUCTS:
        marks = {vocabulary: "LM head", RANK: "adapters", 1: "value head"}
        return "products: " + next((kind for size, kind in marks.items() if size in sizes), "frozen layers")
    named = [where for words, where in NAMES.items() if words in operation.name]
    if named:
        return named[0]
    if vocabulary in sizes:
        return "softmax over the vocabulary"
    if operation.name == "aten::copy_" and len(operation.shapes) == 2 and len(operation.shapes[0]) == 2:
        return "biases, written before the product is added"
    return "everything else"


if __name__ == "__main__":
    main()
