"""What an environment is: who answers the model, turn after turn, and pays for each of its turns.

An environment is any object with two methods, plain or async; a class that is called with `args` makes one for every
episode:

* `reset(prompt, **columns)` gives the first messages: a string (what a user says) or a list of messages. It is given
  what it names, or everything if it takes `**columns`: the data row's `prompt` and its other columns, and `seed`, an
  integer to draw from what the row leaves open. All episodes of one prompt (`num_generations`) get the same seed, so
  that they can be compared; a column `seed` of the data comes before the drawn one.
* `step(text)` takes what the model said, without control tokens, and returns a `Step`.

It may have `tools`, JSON schemas that the chat template shows the model in the format it has for them.

What happens in an episode must follow from `args`, the row, the seed and what the model says, from nothing else, or
the run can neither be repeated nor continued.
"""

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Protocol

from rlhf.data.messages import Message

Messages = str | list[Message]
"""What a user says, or messages with `role` and `content`."""


@dataclass(frozen=True)
class Step:
    """What an environment makes of a turn.

    Attributes:
        observation: What the model reads next: a string (what a user says) or messages. At the end there may be none;
            if there is one, nobody but the player of `rlhf play` sees it.
        reward: For this turn. It lands on the turn's last token.
        done: Whether the episode is over.
        metrics: Numbers about the episode. Of each name the last one counts; the metrics of the run have their mean
            over the episodes as reward_metric/NAME.
    """

    observation: Messages = ""
    reward: float = 0.0
    done: bool = False
    metrics: dict[str, float] = field(default_factory=dict)


class Environment(Protocol):
    """One episode; see the top of this file for what `reset` may be given."""

    def reset(self, **row: Any) -> Messages | Awaitable[Messages]:
        """The first messages."""

    def step(self, text: str) -> Step | Awaitable[Step]:
        """The answer to a turn of the model."""
