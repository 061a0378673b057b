"""Rewards: functions from prompts and completions to scores, and their weighted sum.

Pure Python: importing this package loads neither torch nor transformers, and nothing here knows a stage.
"""

from rlhf.rewards.contract import Explains, Item, RewardError, RewardFunction, Span, SpanReward
from rlhf.rewards.spec import BUILTINS, RewardSpec, load_reward
from rlhf.rewards.total import RewardSum, Scores, WeightedReward

__all__ = [
    "BUILTINS",
    "Explains",
    "Item",
    "RewardError",
    "RewardFunction",
    "RewardSpec",
    "RewardSum",
    "Scores",
    "Span",
    "SpanReward",
    "WeightedReward",
    "load_reward",
]
