"""Rewards a length within bounds."""

from typing import Any

from rlhf.rewards.turns import TextReward


class Length(TextReward):
    """1 from `minimum` to `maximum` characters, outside falling linearly to 0 over `margin` more.

    `score = max(0, 1 - distance / margin)`, distance being the characters too few or too many. Raises ValueError
    unless `0 <= minimum <= maximum` and `margin > 0`. Fooled by any text of the right length.
    """

    def __init__(self, *, maximum: int = 500, minimum: int = 0, margin: int = 100) -> None:
        if not 0 <= minimum <= maximum or margin <= 0:
            raise ValueError(
                f"minimum {minimum}, maximum {maximum}, margin {margin}: need 0 <= minimum <= maximum, margin > 0"
            )
        self.minimum, self.maximum, self.margin = minimum, maximum, margin

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        return [max(0.0, 1.0 - self._distance(text) / self.margin) for text in completions]

    def explain(self, prompt: str, completion: str, **columns: Any) -> str:
        return f"{len(completion)} characters, {self._distance(completion)} outside {self.minimum} to {self.maximum}"

    def _distance(self, text: str) -> int:
        return max(self.minimum - len(text), len(text) - self.maximum, 0)
