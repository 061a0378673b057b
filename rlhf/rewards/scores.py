"""What a batch of samples earned from each reward, and a reward with its place in the sum."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.rewards.contract import Span


@dataclass(frozen=True)
class Scores:
    """What a batch of B samples earned.

    Attributes:
        total: [B] weighted sum of the scores; `None` counts as 0.
        components: by name, [B] unweighted scores, `None` where the reward does not apply.
        spans: [B] weighted amounts for stretches of the completion, in addition to `total`.
    """

    total: list[float]
    components: dict[str, list[float | None]]
    spans: list[list[Span]]

    @classmethod
    def concatenate(cls, parts: Sequence["Scores"]) -> "Scores":
        """The samples of all parts, one part after the other; all have the same components."""
        return cls(
            [score for part in parts for score in part.total],
            {name: [score for part in parts for score in part.components[name]] for name in parts[0].components},
            [spans for part in parts for spans in part.spans],
        )

    @property
    def span_total(self) -> list[float]:
        """[B] what the spans of each sample add up to; `total + span_total` is what is trained on."""
        return [sum(span.value for span in spans) for spans in self.spans]

    def component_means(self) -> dict[str, float]:
        """Mean of each component over the samples that it applies to; absent if there are none."""
        applied = {name: [s for s in scores if s is not None] for name, scores in self.components.items()}
        return {name: sum(scores) / len(scores) for name, scores in applied.items() if scores}


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
