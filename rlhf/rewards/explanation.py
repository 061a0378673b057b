"""The scores of one response in words: each component, its weight, and the reason where the reward can say it."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf.errors import RewardError, with_kind
from rlhf.rewards.contract import Explains
from rlhf.rewards.scores import Scores, WeightedReward


def explanation(
    rewards: Sequence[WeightedReward],
    scores: Scores,
    row: int,
    prompt: Any,
    completion: Any,
    columns: Mapping[str, Any],
) -> str:
    """A paragraph per component of the scores that this row has been given; nothing is scored again.

    Raises RewardError if a reward fails to explain itself.
    """
    lines = []
    for reward in rewards:
        score = scores.components[reward.name][row]
        lines.append(f"{reward.name} (weight {reward.weight:g}): {'-' if score is None else f'{score:.4f}'}")
        if isinstance(reward.function, Explains):
            try:
                reason = reward.function.explain(prompt, completion, **columns)
            except Exception as error:
                what = with_kind(error)[:300]
                raise RewardError(f"reward {reward.name!r} cannot explain its score ({what})") from error
            lines += [f"  {line}" for line in reason.splitlines()]
    return "\n".join([*lines, f"total: {scores.total[row] + scores.span_total[row]:.4f}"])
