"""From the updates of all sides to medians and ratios."""

from statistics import median
from typing import Any

from ppo_bench.floor import Work, work_of_update
from ppo_bench.laps import PHASES, Measured
from ppo_bench.settings import Critic, Setting

OURS, THEIRS, THEIRS_FP32, OURS_FULL = "rlhf", "trl", "trl_fp32", "rlhf_full_length"
MINIMIND, ALL_WEIGHTS = "minimind", "rlhf_all_weights"
PEERS = {THEIRS: "TRL", MINIMIND: "minimind"}
MIB = 2**20

Result = dict[str, Any]


def conclude(about: Result, setting: Setting, updates: dict[str, list[Measured]], rates: list[Work]) -> Result:
    """Everything there is to say about one run of the benchmark.

    Args:
        about: Its options and the machine.
        setting: What was done.
        updates: Of each side.
        rates: FLOPs per second of each kind of product, measured between the updates.
    """
    clock, critic = about["clock"], about["critic"]
    sides = {name: summary(measured, clock) for name, measured in updates.items()}
    rate = Work(*(median(column) for column in zip(*rates, strict=True)))
    ours = sides[OURS]
    floors = [floor_seconds(setting, update["lengths"], critic, rate) for update in updates[OURS]]
    flops = [sum(work_of_update(setting, update["lengths"], critic)) for update in updates[OURS]]
    result = about | {
        "sides": sides,
        "floor_ratio": ours["seconds"]["total"] / median(floors),
        "floor_seconds": median(floors),
        "flops": median(flops),
        "flops_per_second": rate._asdict(),
    }
    for peer in sides.keys() & PEERS:
        result["speed_ratio"] = ours["tokens_per_second"] / sides[peer]["tokens_per_second"]
        result["memory_ratio"] = ours["peak_mib"] / sides[peer]["peak_mib"]
        if ALL_WEIGHTS in sides:
            alike = sides[ALL_WEIGHTS]
            result["speed_ratio_all_weights"] = alike["tokens_per_second"] / sides[peer]["tokens_per_second"]
            result["memory_ratio_all_weights"] = alike["peak_mib"] / sides[peer]["peak_mib"]
    if THEIRS_FP32 in sides:
        result["speed_ratio_to_fp32"] = ours["tokens_per_second"] / sides[THEIRS_FP32]["tokens_per_second"]
    if OURS_FULL in sides:
        full = floor_seconds(setting, [setting.response_tokens] * setting.batch, critic, rate)
        ideal = sum(floors) / full * sides[OURS_FULL]["seconds"]["total"]
        result["padding_free_share"] = ideal / sum(seconds_of(update, clock) for update in updates[OURS])
    if "gpu_peak_flops" in about:
        result["model_flops_utilization"] = median(flops) / ours["seconds"]["total"] / about["gpu_peak_flops"]
    return result


def summary(updates: list[Measured], clock: str) -> Result:
    """Medians over the updates of one side: response tokens per second, seconds per phase; and its peak memory."""
    speeds = [sum(update["lengths"]) / seconds_of(update, clock) for update in updates]
    seconds = {phase: median(phases(update, clock)[phase] for update in updates) for phase in PHASES}
    return {
        "tokens_per_second": median(speeds),
        "slowest": min(speeds),
        "fastest": max(speeds),
        "seconds": seconds | {"total": median(seconds_of(update, clock) for update in updates)},
        "response_tokens": median(sum(update["lengths"]) for update in updates),
        "peak_mib": max(update["peak_memory"] for update in updates) / MIB,
        "updates": updates,
    }


def floor_seconds(setting: Setting, lengths: list[int], critic: Critic, rate: Work) -> float:
    """Seconds that the products of one update take by themselves."""
    return sum(flops / speed for flops, speed in zip(work_of_update(setting, lengths, critic), rate, strict=True))


def phases(update: Measured, clock: str) -> dict[str, float]:
    """Seconds of an update by phase, of the processor or on the wall."""
    return update["cpu"] if clock == "cpu" else update["wall"]


def seconds_of(update: Measured, clock: str) -> float:
    return sum(phases(update, clock).values())
