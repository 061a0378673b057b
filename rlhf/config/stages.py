"""The stages around PPO: SFT, evaluate, generate, score, and the pipeline of them all."""

from dataclasses import dataclass, field

from rlhf.config.checkpoint import CheckpointConfig
from rlhf.config.checks import (
    require,
    require_divides,
    require_finite,
    require_not_negative,
    require_paths,
    require_positive,
)
from rlhf.config.common import DataConfig, HubConfig, LoraConfig, ModelConfig, SamplingConfig, TrackingConfig
from rlhf.config.ppo import PPOConfig
from rlhf.rewards.spec import RewardSpec

NO_MODEL = "model.name_or_path is not set; name a hub model or the folder of a trained one"


@dataclass(frozen=True, kw_only=True)
class SFTConfig:
    """Supervised fine-tuning on prompt/completion pairs, loss on the completion only.

    Args:
        output_dir: The merged model and tokenizer land in its folder model/.
        model: What to start from.
        data: Needs a completion in every row.
        lora: Train adapters, merged at the end; None trains all weights.
        epochs: Passes over the data.
        batch_size: Pairs per optimizer step, over all processes.
        micro_batch_size: Pairs per forward pass; None is the whole batch.
        learning_rate: Peak; cosine decay to 0 after the warm-up.
        warmup_fraction: Share of the steps with rising learning rate.
        weight_decay: AdamW's.
        max_grad_norm: Gradients are scaled down to this norm.
        seed: Seeds weights, data order and sampling.
        processes: Refuse to run on any other number of processes; None takes them as they are launched.
        checkpoint: How often the state is saved, so that the same command continues an interrupted run.
        tracking: Metrics.
        push_to_hub: Upload the finished model; None keeps it here.
    """

    output_dir: str = "runs/sft"
    model: ModelConfig
    data: DataConfig
    lora: LoraConfig | None = None
    epochs: float = 3.0
    batch_size: int = 32
    micro_batch_size: int | None = None
    learning_rate: float = 5e-5
    warmup_fraction: float = 0.05
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    seed: int = 0
    processes: int | None = None
    checkpoint: CheckpointConfig = field(default_factory=lambda: CheckpointConfig(every=200))
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    push_to_hub: HubConfig | None = None

    def __post_init__(self) -> None:
        require_finite(self)
        require_paths(self, "output_dir")
        require_not_negative(self, "seed", "weight_decay")
        require(0 <= self.warmup_fraction < 1, f"warmup_fraction is {self.warmup_fraction}; it must be in [0, 1)")
        require_positive(self, "epochs", "batch_size", "micro_batch_size", "learning_rate", "max_grad_norm")
        require_positive(self, "processes")
        require_divides("batch_size", self.batch_size, "micro_batch_size", self.micro_batch_size or self.batch_size)
        require(
            self.model.name_or_path is not None or self.model.scratch is not None,
            "model is empty; give model.name_or_path or model.scratch",
        )


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Sampling on held-out prompts with a fixed seed, and the mean of every reward component.

    Args:
        output_dir: evaluation.json and responses.jsonl land here.
        model: A causal language model, or a folder written by `rlhf ppo`.
        data: Held-out prompts: data.eval, or data.train where that is not set.
        rewards: As in PPO; a weight of 0 measures without adding to the reward.
        sampling: Sampling.
        prompts: How many prompts, from the start of the file; None takes all.
        samples_per_prompt: Responses per prompt.
        batch_size: Responses generated at once.
        seed: Of the sampling.
    """

    output_dir: str = "runs/evaluation"
    model: ModelConfig
    data: DataConfig
    rewards: list[RewardSpec]
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    prompts: int | None = None
    samples_per_prompt: int = 1
    batch_size: int = 128
    seed: int = 1234

    def __post_init__(self) -> None:
        require_finite(self)
        require_paths(self, "output_dir")
        require_not_negative(self, "seed")
        require_positive(self, "prompts", "samples_per_prompt", "batch_size")
        require(self.model.name_or_path is not None, NO_MODEL)


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Completions for prompts, printed or written.

    Args:
        model: Base or SFT model, or a folder written by `rlhf ppo`.
        prompt: One prompt, or several.
        data: Take the prompts from a file instead.
        sampling: Sampling.
        samples_per_prompt: Completions per prompt.
        batch_size: Completions generated at once.
        output: Write JSONL here instead of printing.
        merge_to: Also write the model with its adapters merged into this folder.
        seed: Of the sampling.
    """

    model: ModelConfig
    prompt: list[str] = field(default_factory=list)
    data: DataConfig | None = None
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(max_response_tokens=256, temperature=0.7))
    samples_per_prompt: int = 1
    batch_size: int = 32
    output: str | None = None
    merge_to: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require_finite(self)
        require_paths(self, "output", "merge_to")
        require_not_negative(self, "seed")
        require_positive(self, "samples_per_prompt", "batch_size")
        require(self.model.name_or_path is not None, NO_MODEL)
        require(bool(self.prompt) != (self.data is not None), "give either prompt or data, not both and not neither")


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Every reward component for the completions of a file.

    Args:
        input: JSONL with `prompt` and `completion` (and `reference`, for rewards that compare).
        output: The same rows with `reward` and `rewards` added.
        rewards: Components.
    """

    input: str
    output: str
    rewards: list[RewardSpec]

    def __post_init__(self) -> None:
        require_paths(self, "input", "output")


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """The evaluation before and after PPO; see EvaluateConfig.

    Args:
        prompts: How many held-out prompts; None takes all.
        samples_per_prompt: Responses per prompt.
        metrics: Rewards that are only measured, besides those that are trained on.
        seed: Of the sampling.
    """

    prompts: int | None = None
    samples_per_prompt: int = 1
    metrics: list[RewardSpec] = field(default_factory=list)
    seed: int = 1234

    def __post_init__(self) -> None:
        require_finite(self)
        require_not_negative(self, "seed")
        require_positive(self, "prompts", "samples_per_prompt")


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """SFT, evaluation, PPO, evaluation, summary.

    Args:
        output_dir: The stages work in its folders sft/ and ppo/; summary.json, summary.md and plots lie in it.
        sft: The first stage; its output_dir is ignored.
        ppo: The second stage; it starts from the SFT model and its output_dir is ignored.
        evaluation: Held-out measurement of both.
        seed: Overrides the seed of both stages.
    """

    output_dir: str = "runs/pipeline"
    sft: SFTConfig
    ppo: PPOConfig
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    seed: int = 0

    def __post_init__(self) -> None:
        require_finite(self)
        require_paths(self, "output_dir")
        require_not_negative(self, "seed")
