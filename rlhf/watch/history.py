"""What is kept of the metrics of a run, update by update, to tell where it started and where it is now."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

START = 3
"""Updates that say where a run started from."""

WINDOW = 5
"""Updates that a level is averaged over: one bad batch is not a bad run."""

PATIENCE = 10
"""Updates after which what has not come is missed."""


@dataclass
class Series:
    """What is kept of one metric: how many values there were, the first few and the latest."""

    n: int = 0
    first: list[float] = field(default_factory=list)
    latest: list[float] = field(default_factory=list)

    def add(self, value: float) -> None:
        """Take in the value of one update."""
        self.n += 1
        if self.n <= START:
            self.first.append(value)
        self.latest = [*self.latest, value][-PATIENCE:]

    @property
    def start(self) -> float:
        """Mean of the first values."""
        return statistics.fmean(self.first)

    @property
    def before(self) -> float:
        """Mean of the window before the latest one."""
        return statistics.fmean(self.latest[:-WINDOW] or self.latest)

    @property
    def now(self) -> float:
        """Mean of the latest window."""
        return statistics.fmean(self.latest[-WINDOW:])


History = Mapping[str, Series]
