"""Reward hacking: the score that is trained on rises while one that is not trained on falls."""

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

EMA_WEIGHT = 0.25
"""Of the newest update in the smoothed series, once there are more than four."""

NOISE_MEMORY = 50
"""Updates over which the noise of a series is estimated."""

MIN_UPDATES = 5
"""Before that neither the smoothed series nor its noise is worth comparing."""

CERTAINTY = 6.0
"""Standard errors that a rise or fall must measure; see `HackingDetector` for what it buys."""


@dataclass
class Smoothed:
    """Exponential moving average of a noisy series, and how far noise alone would move it.

    The noise of a single value is estimated from successive differences, sigma^2 = mean (x_t - x_{t-1})^2 / 2, which a
    slow trend does not inflate (von Neumann 1941).
    """

    n: int = 0
    mean: float = 0.0
    last: float = 0.0
    variance: float = 0.0

    def add(self, value: float) -> None:
        """Take in the next value; the first few are averaged plainly."""
        self.n += 1
        if self.n > 1:
            squared = (value - self.last) ** 2 / 2
            self.variance += (squared - self.variance) / min(self.n - 1, NOISE_MEMORY)
        self.mean += max(EMA_WEIGHT, 1 / self.n) * (value - self.mean)
        self.last = value

    @property
    def standard_error(self) -> float:
        """Of the difference between the average now and one from long ago: sigma sqrt(2 w / (2 - w))."""
        return float((self.variance * 2 * EMA_WEIGHT / (2 - EMA_WEIGHT)) ** 0.5)


class Divergence(NamedTuple):
    """How far score and gold reward have moved since the gold reward was at its best, and what noise would do."""

    score_rise: float
    score_error: float
    gold_fall: float
    gold_error: float

    @property
    def is_hacking(self) -> bool:
        """Both movements are beyond noise."""
        return self.gold_fall > CERTAINTY * self.gold_error and self.score_rise > CERTAINTY * self.score_error


@dataclass
class HackingDetector:
    """Compares score and gold reward with what they were when the gold reward was at its best.

    Rule: both series are smoothed; the best smoothed gold reward so far, and the smoothed score at that update, are
    kept. Hacking is a gold reward that has fallen by more than 6 standard errors from its best while the score has
    risen by more than 6 of its own since then. A standard error comes from the run itself (see `Smoothed`), so that a
    noisy reward and a small batch raise the bar. Six, because the best of many noisy averages lies well above the
    rest: a gold reward that only jitters around a constant, next to a score that rises, raised a false alarm in
    7 of 1000 simulated runs of 1000 updates.
    """

    score: Smoothed = field(default_factory=Smoothed)
    gold: Smoothed = field(default_factory=Smoothed)
    best_gold: float | None = None
    score_at_best: float = 0.0

    def add(self, score: float, gold: float) -> Divergence | None:
        """Take in one update; None while there are too few to compare."""
        self.score.add(score)
        self.gold.add(gold)
        if self.gold.n < MIN_UPDATES:
            return None
        if self.best_gold is None or self.gold.mean > self.best_gold:
            self.best_gold, self.score_at_best = self.gold.mean, self.score.mean
        return Divergence(
            score_rise=self.score.mean - self.score_at_best,
            score_error=self.score.standard_error,
            gold_fall=self.best_gold - self.gold.mean,
            gold_error=self.gold.standard_error,
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON values."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.score, self.gold = Smoothed(**state["score"]), Smoothed(**state["gold"])
        self.best_gold, self.score_at_best = state["best_gold"], state["score_at_best"]
