"""What rewards log besides their scores: columns for the table of samples, and metrics."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf.rewards.numbers import finite, plain


@dataclass(frozen=True)
class Logged:
    """What was logged about B samples.

    Attributes:
        extra: by column, [B] values; None where a batch did not log the column.
        metrics: by name, every value that was logged, and the number of samples that it stands for; 0: an equal share.
    """

    extra: dict[str, list[Any]] = field(default_factory=dict)
    metrics: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def log_extra(self, column: str, values: Sequence[Any]) -> None:
        """Add values to a column; in the end there must be one per sample."""
        self.extra.setdefault(str(column), []).extend(plain(value) for value in values)

    def log_metric(self, name: str, value: float, samples: int = 0) -> None:
        """Add a value, the mean of so many samples (0: of an equal share); raises ValueError unless it is finite."""
        try:
            self.metrics.setdefault(str(name), []).append((finite(value), float(samples)))
        except ValueError as error:
            raise ValueError(f"metric {name!r} is {value!r}; it must be a finite number") from error

    def add(self, reward: str, other: "Logged", n_samples: int) -> None:
        """Take over what one reward logged about the samples; names that another one has used get its own in front.

        The values of a metric share the samples, unless it was said what they stand for.
        """
        for name, column in list(other.extra.items()):
            self.extra[f"{reward}/{name}" if name in self.extra else name] = column
        for name, pairs in list(other.metrics.items()):
            shared = [(value, n or n_samples / len(pairs)) for value, n in pairs]
            self.metrics[f"{reward}/{name}" if name in self.metrics else name] = shared

    @classmethod
    def concatenate(cls, parts: Sequence[tuple["Logged", int]]) -> "Logged":
        """One part after the other; each comes with its number of samples."""
        columns = sorted({column for part, _ in parts for column in part.extra})
        names = sorted({name for part, _ in parts for name in part.metrics})
        return cls(
            {c: [value for part, n in parts for value in part.extra.get(c, [None] * n)] for c in columns},
            {name: [pair for part, _ in parts for pair in part.metrics.get(name, ())] for name in names},
        )

    def metric_means(self) -> dict[str, float]:
        """Mean of each metric over the samples, as `reward_metric/NAME`."""
        return {
            f"reward_metric/{name}": sum(value * n for value, n in pairs) / sum(n for _, n in pairs)
            for name, pairs in self.metrics.items()
        }
