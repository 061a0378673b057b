"""`rlhf toy dynamics`: train, write, draw, print."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from rlhf.toy import report, story
from rlhf.toy.config import DynamicsConfig
from rlhf.toy.dynamics import sweeps, swept_value
from rlhf.toy.forces import Traces, train
from rlhf.toy.plots import dynamics as plots


def run(config: DynamicsConfig) -> dict[str, Any]:
    """Train the run and its sweeps, tell what happened, draw, write and print; returns the summary."""
    groups = sweeps(config)
    settings = [config, *(s for group in groups.values() for s in group)]
    traces = train(settings)
    runs = [[_trace(traces, i, seed) for seed in range(config.seeds)] for i in range(len(settings))]
    told = story.tell(config, runs[0][0])
    outcomes: list[dict[str, Any]] = [
        {
            "batch_size": s.batch_size, "kl_target": s.kl_target, "clip_range": s.clip_range, "lr": s.lr,
            "share_in_band": sum(story.share_in_band(s, r) for r in of) / len(of),
            "verdict_first_seed": story.verdict(s, of[0]),
        }
        for s, of in zip(settings, runs, strict=True)
    ]  # fmt: skip
    summary = {"story": told, "share_in_band": outcomes[0]["share_in_band"], "sweeps": outcomes[1:]}
    report.write(config.output_dir, config, _records(traces), summary)
    plots.draw(config.output_dir, config, groups, traces)
    print(f"Seed {config.seed}, {in_words(config)}:\n  " + "\n  ".join(told) + "\n")
    labels = [f"{name}: {swept_value(name, s)}" for name, group in groups.items() for s in group]
    rows = [
        (label, f"{outcome['share_in_band']:.0%}", outcome["verdict_first_seed"])
        for label, outcome in zip(labels, outcomes[1:], strict=True)
    ]
    print(report.table(["sweep", "in band", f"seed {config.seed}"], rows))
    return summary


def in_words(config: DynamicsConfig) -> str:
    """The settings that are not as they come."""
    changed = [
        f"{field.name} {getattr(config, field.name):g}"
        for field in fields(config)
        if field.name not in ("seed", "seeds", "threads", "output_dir") and getattr(config, field.name) != field.default
    ]
    return ", ".join(changed) or "default setting"


def _trace(traces: Traces, setting: int, seed: int) -> story.RunTrace:
    return story.RunTrace(
        **{f.name: getattr(traces, f.name)[:, setting, seed].tolist() for f in fields(story.RunTrace)}
    )


def _records(traces: Traces) -> Iterator[dict[str, Any]]:
    """The run itself, a line per update with every seed; the sweeps are in the summary."""
    for update in range(len(traces.kl)):
        yield {"update": update, **{f.name: getattr(traces, f.name)[update, 0].tolist() for f in fields(Traces)}}
