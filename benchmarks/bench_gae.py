"""How fast is GAE? The doubling of `rlhf.maths.advantages` against the plain reversed loop over T.

    python benchmarks/bench_gae.py [--batch 512] [--tokens 1024] [--threads 2] [--device cpu]

Prints the best of repeated calls (the least disturbed by whatever else runs), and the largest error against the loop
in float64.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from rlhf.maths.advantages import gae

GAMMA, LAMBDA = 1.0, 0.95


def plain_gae(rewards: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The textbook loop: one step of the recursion per token, on columns of the batch."""
    rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)
    advantages = torch.zeros_like(rewards)
    following = next_value = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + GAMMA * next_value - values[:, t]
        following = delta + GAMMA * LAMBDA * following
        advantages[:, t] = following
        next_value = values[:, t]
    advantages = torch.where(mask, advantages, 0.0)
    return advantages, torch.where(mask, advantages + values, 0.0)


def milliseconds(call: Callable[[], object], device: str, repeats: int) -> float:
    """Best wall time of a call after two to warm up."""
    times = []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - started))
    return min(times[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(0)
    shape = (arguments.batch, arguments.tokens)
    rewards, values = (torch.randn(shape, generator=generator).to(arguments.device) for _ in range(2))
    lengths = torch.randint(arguments.tokens // 2, arguments.tokens + 1, (arguments.batch, 1), generator=generator)
    mask = (torch.arange(arguments.tokens) < lengths).to(arguments.device)

    slow = milliseconds(lambda: plain_gae(rewards, values, mask), arguments.device, repeats=9)
    fast = milliseconds(lambda: gae(rewards, values, mask, GAMMA, LAMBDA), arguments.device, repeats=51)
    ours, loop = gae(rewards, values, mask, GAMMA, LAMBDA)[0], plain_gae(rewards, values, mask)[0]
    exact = plain_gae(rewards.double(), values.double(), mask)[0]
    print(
        f"[B, T] = [{shape[0]}, {shape[1]}], {arguments.threads} threads, {arguments.device}, torch {torch.__version__}"
    )
    print(f"plain loop {slow:8.2f} ms, largest error {(loop - exact).abs().max():.1e}")
    print(f"doubling   {fast:8.2f} ms, largest error {(ours - exact).abs().max():.1e}: {slow / fast:.1f} times faster")


if __name__ == "__main__":
    main()
