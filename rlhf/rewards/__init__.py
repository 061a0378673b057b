"""Rewards: functions from prompts and completions to scores, and their weighted sum.

Pure Python: importing this package loads neither torch nor transformers, and nothing here knows a stage.
"""

from rlhf.config.rewards import BUILTINS, RewardSpec
from rlhf.errors import RewardError
from rlhf.rewards.contract import Explains, Item, RewardFunction, Span, SpanReward
from rlhf.rewards.loading import load_reward
from rlhf.rewards.scores import Scores, WeightedReward
from rlhf.rewards.total import RewardSum

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
