"""What was said and paid in an episode of several turns; the tokens are those of the `Responses` that it belongs to."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from rlhf.data.messages import Message

Ending = Literal["done", "cut", "full", "max_turns"]
ENDINGS: dict[str, str] = {
    "done": "over",
    "cut": "a turn was cut off",
    "full": "no room for another turn",
    "max_turns": "cut off after environment.max_turns turns",
}
"""Each ending in words; all but the first are truncations."""


@dataclass(frozen=True)
class Episode:
    """An episode after its first messages.

    Attributes:
        messages: The model's turns and what the environment answered, from the model's first turn to its last.
        rewards: For each turn of the model.
        ending: Why it ended.
        metrics: What the environment measured.
    """

    messages: tuple[Message, ...]
    rewards: tuple[float, ...]
    ending: Ending
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """What the environment paid in all."""
        return sum(self.rewards)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"messages": list(self.messages), "rewards": list(self.rewards)}

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Self:
        """What `plain` gave."""
        return cls(tuple(plain["messages"]), tuple(plain["rewards"]), plain["ending"], dict(plain["metrics"]))
