"""Configuration: one frozen dataclass per stage, one-to-one with the YAML files in `configs/`.

Nothing heavy is imported, so that `rlhf --help` stays fast. Contradictions raise `UserError` on construction;
derived quantities are properties.
"""

from rlhf.config.checkpoint import CheckpointConfig
from rlhf.config.common import (
    Architecture,
    DataConfig,
    DType,
    HubConfig,
    LoraConfig,
    ModelConfig,
    SamplingConfig,
    ScratchModel,
    TrackingConfig,
)
from rlhf.config.ppo import Advantage, Critic, InspectConfig, KLEstimator, PPOConfig, ValueWarmup
from rlhf.config.reward import RewardModelConfig
from rlhf.config.stages import (
    EvaluateConfig,
    EvaluationSettings,
    GenerateConfig,
    PipelineConfig,
    ScoreConfig,
    SFTConfig,
)
from rlhf.config.watch import WatchConfig

__all__ = [
    "Advantage",
    "Architecture",
    "CheckpointConfig",
    "Critic",
    "DType",
    "DataConfig",
    "EvaluateConfig",
    "EvaluationSettings",
    "GenerateConfig",
    "HubConfig",
    "InspectConfig",
    "KLEstimator",
    "LoraConfig",
    "ModelConfig",
    "PPOConfig",
    "PipelineConfig",
    "RewardModelConfig",
    "SFTConfig",
    "SamplingConfig",
    "ScoreConfig",
    "ScratchModel",
    "TrackingConfig",
    "ValueWarmup",
    "WatchConfig",
]
