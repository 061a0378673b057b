"""Whether a run takes more and more of the machine: late readings against early ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from endurance.gauge import Reading
from endurance.task import CHECKPOINT_EVERY


@dataclass(frozen=True)
class Quantity:
    """Something that must not grow.

    Attributes:
        name: With its unit.
        of: Its value in a reading; None where that says nothing of it.
        slack: How much more it may be late in a run than early, as a share: what noise makes of nothing.
    """

    name: str
    of: Callable[[Reading], float | None]
    slack: float


def plain_update(reading: Reading) -> float | None:
    """Processor time of an update without a checkpoint, in units of a fixed piece of work."""
    return None if follows_checkpoint(reading) else reading.cpu_seconds / reading.cpu_unit


def saving_update(reading: Reading) -> float | None:
    """Processor time of an update and of the checkpoint before it, in the same units."""
    return reading.cpu_seconds / reading.cpu_unit if follows_checkpoint(reading) else None


def follows_checkpoint(reading: Reading) -> bool:
    """Whether the time since the last reading has a checkpoint in it."""
    return reading.update % CHECKPOINT_EVERY == 1


QUANTITIES = (
    Quantity("memory, MB", lambda reading: reading.memory / 1e6, 0.02),
    Quantity("open handles", lambda reading: reading.handles, 0.0),
    Quantity("threads", lambda reading: reading.threads, 0.0),
    Quantity("processor time of an update, units", plain_update, 0.15),
    Quantity("the same with a checkpoint, units", saving_update, 0.15),
    Quantity("checkpoints, kB", lambda reading: reading.checkpoint_bytes / 1e3, 0.02),
    Quantity("other files, kB per update", lambda reading: reading.other_bytes / 1e3 / reading.update, 0.05),
)


@dataclass(frozen=True)
class Growth:
    """A quantity early and late in a run, as medians."""

    quantity: Quantity
    early: float
    late: float

    @property
    def is_growth(self) -> bool:
        """More than noise."""
        return self.late > self.early * (1 + self.quantity.slack)


def growth(readings: Sequence[Reading], updates: int) -> list[Growth]:
    """The fourth tenth of the updates against the last; before it, allocators and buffers may fill up once."""
    tenth = updates // 10
    early = [reading for reading in readings if 3 * tenth < reading.update <= 4 * tenth]
    late = [reading for reading in readings if reading.update > updates - tenth]
    return [Growth(quantity, middle(quantity, early), middle(quantity, late)) for quantity in QUANTITIES]


def middle(quantity: Quantity, readings: Sequence[Reading]) -> float:
    """The median of a quantity."""
    return median(value for reading in readings if (value := quantity.of(reading)) is not None)
