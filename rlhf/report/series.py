"""Curves for charts: several seeds as a mean and its band, long ones thinned without hiding a spike."""

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rlhf.report.load import Row

MAX_POINTS = 500
DIGITS = 5


@dataclass(frozen=True)
class Curve:
    """A metric over the steps; low and high are the smallest and largest value that a point stands for."""

    steps: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]

    @property
    def has_band(self) -> bool:
        """Whether a point stands for values that differ."""
        return any(low != high for low, high in zip(self.low, self.high, strict=True))

    def plain(self) -> dict[str, Any]:
        """For JSON; the band only where there is one."""
        band = {"lo": quantize(self.low), "hi": quantize(self.high)} if self.has_band else {}
        return {"x": quantize(self.steps), "y": quantize(self.mean), **band}


def curve(seeds: list[list[Row]], metric: str, max_points: int = MAX_POINTS) -> Curve | None:
    """Mean and band over the seeds at each step, in at most `max_points` points; None where no seed has the metric.

    A step at which any seed is not finite is NaN, so that a run that broke shows.
    """
    at_step: dict[float, list[float]] = {}
    for rows in seeds:
        for row in rows:
            if isinstance(row.get(metric), int | float):
                at_step.setdefault(row["step"], []).append(float(row[metric]))
    if not at_step:
        return None
    steps = sorted(at_step)
    size = math.ceil(len(steps) / max_points)
    points = [steps[start : start + size] for start in range(0, len(steps), size)]
    values = [[value for step in point for value in at_step[step]] for point in points]
    return Curve(
        [point[len(point) // 2] for point in points],
        [mean(of_point) for of_point in values],
        [min(of_point) for of_point in values],
        [max(of_point) for of_point in values],
    )


def mean(values: list[float]) -> float:
    """The mean; NaN where any value is not finite."""
    return fmean(values) if all(map(math.isfinite, values)) else math.nan


def quantize(values: list[float]) -> list[float | int | None]:
    """Five significant digits, which is more than a screen can show; None for what is not finite."""
    return [_quantized(value) for value in values]


def _quantized(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() else rounded
