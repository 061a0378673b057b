"""What a run measured on held-out data while it trained, as the report shows it."""

import math

from rlhf.config.evaluation import LOWER_IS_BETTER
from rlhf.report.load import Row, Run

HELD_OUT = "held_out/"


def held_out_rows(rows: list[Row]) -> dict[int, Row]:
    """Step -> the held-out means, without what stands before their names, of the rows that have any."""
    measured = {}
    for row in rows:
        means = {name.removeprefix(HELD_OUT): value for name, value in row.items() if name.startswith(HELD_OUT)}
        if means:
            measured[row["step"]] = means
    return measured


def best_step(run: Run) -> str:
    """When the metric of `evaluation` was at its best, in words; empty where nothing was measured."""
    settings = run.config_of(run.stage).get("evaluation")
    metric = settings.get("metric") if isinstance(settings, dict) else None
    values = {
        step: means[metric]
        for step, means in held_out_rows(run.rows).items()
        if metric in means and math.isfinite(means[metric])
    }
    if not values:
        return ""
    choose = min if metric in LOWER_IS_BETTER else max
    best = choose(values.values())
    step = next(step for step, value in values.items() if value == best)
    return f"best held-out {metric} {best:.3g} after {'update' if run.stage == 'ppo' else 'step'} {step}"
