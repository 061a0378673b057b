"""Configuration: one frozen dataclass per stage, one-to-one with the YAML files in `configs/`.

Nothing heavy is imported, so that `rlhf --help` stays fast. Contradictions raise `UserError` on construction;
derived quantities are properties.
"""

from rlhf.config.checkpoint import CheckpointConfig
from rlhf.config.common import (
    Architecture,
    DType,
    HubConfig,
    LoraConfig,
    ModelConfig,
    SamplingConfig,
    ScratchModel,
    TrackingConfig,
)
from rlhf.config.critic import WITH_ADAPTERS, Critic, ValueWarmup
from rlhf.config.data import DataConfig
from rlhf.config.environment import EnvironmentSpec
from rlhf.config.evaluation import PassConfig, PolicyEvaluation, RewardModelEvaluation, SFTEvaluation
from rlhf.config.fetch import FetchConfig
from rlhf.config.fine_tuning import FineTuningConfig, RewardModelConfig, SFTConfig
from rlhf.config.ppo import Advantage, InspectConfig, KLEstimator, PPOConfig
from rlhf.config.setup_render import SetupRenderConfig
from rlhf.config.stages import (
    EvaluateConfig,
    EvaluationSettings,
    GenerateConfig,
    PipelineConfig,
    PlayConfig,
    ScoreConfig,
)
from rlhf.config.watch import WatchConfig

__all__ = [
    "WITH_ADAPTERS",
    "Advantage",
    "Architecture",
    "CheckpointConfig",
    "Critic",
    "DType",
    "DataConfig",
    "EnvironmentSpec",
    "EvaluateConfig",
    "EvaluationSettings",
    "FetchConfig",
    "FineTuningConfig",
    "GenerateConfig",
    "HubConfig",
    "InspectConfig",
    "KLEstimator",
    "LoraConfig",
    "ModelConfig",
    "PPOConfig",
    "PassConfig",
    "PipelineConfig",
    "PlayConfig",
    "PolicyEvaluation",
    "RewardModelConfig",
    "RewardModelEvaluation",
    "SFTConfig",
    "SFTEvaluation",
    "SamplingConfig",
    "ScoreConfig",
    "ScratchModel",
    "SetupRenderConfig",
    "TrackingConfig",
    "ValueWarmup",
    "WatchConfig",
]
