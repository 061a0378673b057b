"""What is printed: tables, ratios, and in words what the sides do differently."""

from ppo_bench.conclude import PEERS, Result
from ppo_bench.laps import PHASES
from ppo_bench.settings import Critic
from rlhf.report.tables import markdown_table


def describe(result: Result) -> str:
    """One run: what was done, a table of the sides, and the ratios."""
    lines = [
        f"**Setting {result['setting']}**, {result['dtype']}, threads {result['threads']}, critic {result['critic']}, "
        f"micro-batch {result['micro_batch']}; medians of {result['repeats']} updates, "
        f"{'processor' if result['clock'] == 'cpu' else 'wall'} seconds",
        "",
        side_table(result),
        "",
        f"- floor: {result['flops'] / 1e9:.1f} GFLOP in {result['floor_seconds']:.2f} s at the rates of this machine ("
        + ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in result["flops_per_second"].items())
        + f" GFLOP/s); ours takes {result['floor_ratio']:.2f} times as long",
    ]
    peer = "".join(name for side, name in PEERS.items() if side in result["sides"])
    said = {
        "speed_ratio": f"times {peer}'s response tokens per second",
        "speed_ratio_to_fp32": "times those of TRL in fp32",
        "memory_ratio": f"of {peer}'s peak memory",
        "speed_ratio_all_weights": f"times {peer}'s, where ours trains all weights as well",
        "memory_ratio_all_weights": f"of {peer}'s peak memory, the same",
        "padding_free_share": "of the speed without any padding (full-length update, scaled by the work)",
        "model_flops_utilization": "of the GPU's peak FLOPs",
    }
    lines += [f"- {name}: {result[name]:.2f} {words}" for name, words in said.items() if name in result]
    if "minimind" in result:
        differ = f"{result['logit_difference']:.0e}"
        lines.append(f"- minimind {result['minimind']}: its logits are those of transformers up to {differ}")
    if "doctor_estimate_mib" in result:
        measured, estimate = result["sides"]["rlhf"]["peak_mib"], result["doctor_estimate_mib"]
        lines.append(
            f"- rlhf doctor expects {estimate:.0f} MiB, measured {measured:.0f}: {estimate / measured - 1:+.0%}"
        )
    return "\n".join(lines)


def machines(results: list[Result]) -> str:
    """Where they ran, and with which versions; each once."""
    lines = {", ".join(f"{name} {value}" for name, value in result["machine"].items()) for result in results}
    return "\n".join(sorted(lines))


def side_table(result: Result) -> str:
    """Speed, seconds per phase and memory of every side."""
    rows = [
        [
            name,
            f"{side['tokens_per_second']:.1f}",
            f"{side['slowest']:.1f} to {side['fastest']:.1f}",
            *(f"{side['seconds'][phase]:.2f}" for phase in (*PHASES, "total")),
            f"{side['peak_mib']:.0f}",
        ]
        for name, side in result["sides"].items()
    ]
    phases = [f"{phase} s" for phase in PHASES]
    return markdown_table(["side", "response tok/s", "range", *phases, "total s", "peak MiB"], rows)


def ratio_table(results: list[Result]) -> str:
    """One row per run."""
    ratios = ["speed_ratio", "speed_ratio_to_fp32", "speed_ratio_all_weights", "memory_ratio"]
    ratios += ["memory_ratio_all_weights", "floor_ratio", "padding_free_share"]
    shown = [name for name in ratios if any(name in result for result in results)]
    rows = [
        [
            *(str(result[name]) for name in ("setting", "dtype", "threads", "critic")),
            *(f"{result[name]:.2f}" if name in result else "" for name in shown),
        ]
        for result in results
    ]
    return markdown_table(["setting", "dtype", "threads", "critic", *(name.replace("_", " ") for name in shown)], rows)


def differences(critic: Critic) -> str:
    """What the two sides do differently though they are given the same work."""
    ours = (
        "a value head on the policy's features"
        if critic == "shared"
        else "a value head and adapters of its own on the same trunk (a second pass through it)"
    )
    return f"""
What the two sides do differently:
- critic: TRL trains a second model in full, all its weights with AdamW; here it is {ours}.
- LM head: TRL keeps the logits of every position and of every step of the decoding; here it runs on response
  positions, and only log-probabilities are kept.
- decoding: TRL's goes through the adapters; here they are merged into the weights meanwhile.
- old log-probabilities: TRL takes those of the decoding; here the forward pass of the update computes them.
- entropy: TRL computes it for every minibatch, here it is computed once per rollout.
- reference: the base without its adapters on both sides.
- unequal lengths: TRL pads all responses to the longest; here finished ones are dropped while the others are sampled,
  and micro-batches hold responses of similar length."""


DIFFERENCES_TO_MINIMIND = """
What the two sides do differently:
- weights: minimind trains all of them, with AdamW; here they are frozen, with LoRA (r=16), but for rlhf_all_weights.
- critic: minimind's is a second model of the same size, trained in full; here it goes through the policy's frozen
  weights (with rlhf_all_weights it is a second trunk too).
- reference: minimind's is a frozen copy, as that of rlhf_all_weights; else it is the base without its adapters.
- LM head: minimind keeps the logits of every position, prompt included, and their softmax; here it runs on response
  positions, and only log-probabilities are kept.
- sampling: minimind's from the 50 likeliest tokens, of them the likeliest 85%, at temperature 0.8, though its
  log-probabilities are those of the whole distribution at temperature 1; here from the distribution that is optimized.
- old log-probabilities: by a pass of their own on both sides, which minimind makes in its rollout.
- KL penalty: minimind's is a term of the loss (k3), here a part of the reward (k1).
- entropy: minimind computes none; here it is computed once per rollout, for reports."""
