"""What a batch of samples earned from each reward, and a reward with its place in the sum."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rlhf.rewards.contract import Span
from rlhf.rewards.logged import Logged


@dataclass(frozen=True)
class Scores:
    """What a batch of B samples earned.

    Attributes:
        total: [B] weighted sum of the scores; `None` counts as 0.
        components: by name, [B] unweighted scores, `None` where the reward does not apply.
        spans: [B] weighted amounts for stretches of the completion, in addition to `total`.
        logged: what the rewards logged besides.
    """

    total: list[float]
    components: dict[str, list[float | None]]
    spans: list[list[Span]]
    logged: Logged = field(default_factory=Logged)

    @classmethod
    def concatenate(cls, parts: Sequence["Scores"]) -> "Scores":
        """The samples of all parts, one part after the other; all have the same components."""
        return cls(
            [score for part in parts for score in part.total],
            {name: [score for part in parts for score in part.components[name]] for name in parts[0].components},
            [spans for part in parts for spans in part.spans],
            Logged.concatenate([(part.logged, len(part.total)) for part in parts]),
        )

    def stored(self) -> str:
        """For a checkpoint, as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def restored(cls, text: str) -> "Scores":
        """What `stored` gave."""
        known = json.loads(text)
        spans = [[Span(**span) for span in row] for row in known["spans"]]
        metrics = {name: [(value, n) for value, n in pairs] for name, pairs in known["logged"]["metrics"].items()}
        return cls(known["total"], known["components"], spans, Logged(known["logged"]["extra"], metrics))

    @property
    def span_total(self) -> list[float]:
        """[B] what the spans of each sample add up to; `total + span_total` is what is trained on."""
        return [sum(span.value for span in spans) for spans in self.spans]

    def component_means(self) -> dict[str, float]:
        """Mean of each component over the samples that it applies to; absent if there are none."""
        applied = {name: [s for s in scores if s is not None] for name, scores in self.components.items()}
        return {name: sum(scores) / len(scores) for name, scores in applied.items() if scores}

    def extra(self, row: int) -> dict[str, Any]:
        """What the rewards logged about one sample, by column; numbers in a column with texts become texts."""
        with_texts = {name for name, values in self.logged.extra.items() if any(isinstance(v, str) for v in values)}
        return {
            name: str(values[row]) if name in with_texts and values[row] is not None else values[row]
            for name, values in self.logged.extra.items()
        }

    def beside(self, row: int, fixed: dict[str, Any]) -> dict[str, Any]:
        """The entries of a table's row and what the rewards logged about it, `extra/NAME` where a name is taken."""
        return fixed | {f"extra/{name}" if name in fixed else name: value for name, value in self.extra(row).items()}


@dataclass(frozen=True)
class WeightedReward:
    """A named callable, plain or async, and its factor in the sum; `RewardSpec` has the meaning of the rest."""

    name: str
    function: Callable[..., Any]
    weight: float = 1.0
    timeout: float | None = None
    clip: float | None = None

    def clipped(self, score: float) -> float:
        """The score as it enters the sum, before it is weighted."""
        return score if self.clip is None else max(-self.clip, min(self.clip, score))
