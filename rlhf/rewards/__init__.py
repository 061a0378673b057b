"""Rewards: functions from prompts and completions to scores, and their weighted sum.

Every built-in is a name of this package, as a callable (`react_full`) and as a class that takes options
(`Length(maximum=400)`); both are rewards for TRL's `GRPOTrainer` too.

Pure Python: importing this package loads neither torch nor transformers, and nothing here knows a stage.
"""

from typing import Any

from rlhf.config.rewards import BUILTINS, RewardSpec
from rlhf.errors import RewardError
from rlhf.rewards.built_in import CLASSES, built_in
from rlhf.rewards.contract import Explains, Item, RewardFunction, Span, SpanReward, TrainerState
from rlhf.rewards.inputs import reward_inputs
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
    "TrainerState",
    "WeightedReward",
    "load_reward",
    "reward_inputs",
]


def __getattr__(name: str) -> Any:
    return built_in(name)


def __dir__() -> list[str]:
    return [*__all__, *BUILTINS, *CLASSES]
