"""Where the time of an update goes."""

import time
from dataclasses import dataclass, field


@dataclass
class Stopwatch:
    """Seconds per phase, lap by lap."""

    laps: dict[str, float] = field(default_factory=dict)
    last: float = field(default_factory=time.perf_counter)

    def lap(self, phase: str) -> None:
        """End a phase; the next one begins."""
        now = time.perf_counter()
        self.laps[phase], self.last = now - self.last, now

    def metrics(self, n_tokens: int) -> dict[str, float]:
        """time/<phase> in seconds, and response tokens per second over all phases."""
        seconds = {f"time/{phase}": lap for phase, lap in self.laps.items()}
        return seconds | {"time/tokens_per_second": n_tokens / sum(self.laps.values())}
