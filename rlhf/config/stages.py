"""The stages around PPO: evaluate, generate, score, and the pipeline of them all."""

from dataclasses import dataclass, field

from rlhf.config.checks import (
    require,
    require_another_file,
    require_finite,
    require_not_negative,
    require_only_read,
    require_paths,
    require_positive,
)
from rlhf.config.common import ModelConfig, SamplingConfig
from rlhf.config.data import DataConfig
from rlhf.config.environment import EnvironmentSpec, names_of_rewards
from rlhf.config.evaluation import PassConfig, require_passable, require_varied
from rlhf.config.fine_tuning import SFTConfig
from rlhf.config.ppo import DERIVED, NO_REWARDS, PPOConfig
from rlhf.config.renamed import with_old_names
from rlhf.config.rewards import RewardSpec

NO_MODEL = "model.name_or_path is not set; name a hub model or the folder of a trained one"


@with_old_names
@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Sampling on held-out prompts with a fixed seed, and the mean of every reward component.

    Args:
        output_dir: evaluation.json and responses.jsonl land here.
        model: A causal language model, or a folder written by `rlhf ppo`.
        data: Held-out prompts: data.eval, or data.train where that is not set; one of them is needed.
        rewards: As in PPO; a weight of 0 measures without adding to the reward.
        environment: As in PPO.
        sampling: How responses are sampled.
        prompts: How many prompts, from the start of the file; None takes all, or 100 episodes of an environment that
            has no data.
        num_generations: Responses per prompt.
        batch_size: Responses generated at once.
        pass_at_k: Report pass@1 to pass@num_generations, too.
        greedy: Decode one response to each prompt greedily, too.
        seed: Seed of the sampling.
    """

    output_dir: str = "runs/evaluation"
    model: ModelConfig
    data: DataConfig
    rewards: list[RewardSpec] = DERIVED
    environment: EnvironmentSpec | None = None
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    prompts: int | None = None
    num_generations: int = 1
    batch_size: int = 128
    pass_at_k: PassConfig | None = None
    greedy: bool = False
    seed: int = 1234

    def __post_init__(self) -> None:
        require(self.rewards is not None or self.environment is not None, NO_REWARDS)
        if self.rewards is None:
            object.__setattr__(self, "rewards", [])
        require_finite(self)
        require_paths(self, "output_dir")
        require_not_negative(self, "seed")
        require_positive(self, "prompts", "num_generations", "batch_size")
        require_passable(self.pass_at_k, self.num_generations, names_of_rewards(self.environment, self.rewards))
        require(
            not (self.greedy and self.sampling.temperature == 0),
            "greedy is true, but sampling.temperature is 0, which decodes greedily already; remove one of them",
        )
        require_varied(self.num_generations, self.sampling)
        require_only_read(self.model)
        require(self.model.name_or_path is not None, NO_MODEL)
        require(
            self.data.eval is not None or self.data.train is not None or self.environment is not None,
            "data.eval is not set; name a file, a folder or a hub dataset of prompts (data.train does it too)",
        )


@with_old_names
@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Completions for prompts, printed or written.

    Args:
        model: Base or SFT model, or a folder written by `rlhf ppo`.
        prompt: One prompt, or several.
        data: Take the prompts from data.train instead, or from data.eval; the other keys say how prompts become tokens
            in either case.
        sampling: How responses are sampled.
        num_generations: Completions per prompt.
        batch_size: Completions generated at once.
        output: Write JSONL here instead of printing.
        merge_to: Also write the model with its adapters merged into this folder.
        seed: Seed of the sampling.
    """

    model: ModelConfig
    prompt: list[str] = field(default_factory=list)
    data: DataConfig | None = None
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(max_new_tokens=256, temperature=0.7))
    num_generations: int = 1
    batch_size: int = 32
    output: str | None = None
    merge_to: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require_finite(self)
        require_paths(self, "output", "merge_to")
        require_not_negative(self, "seed")
        require_positive(self, "num_generations", "batch_size")
        require_varied(self.num_generations, self.sampling)
        require_only_read(self.model)
        require(self.model.name_or_path is not None, NO_MODEL)
        for source in (self.data.train, self.data.eval) if self.data is not None else ():
            require_another_file(self.output, source)
        in_data = self.data is not None and (self.data.train is not None or self.data.eval is not None)
        require(bool(self.prompt) != in_data, "give either prompt or data.train, one of the two")


@dataclass(frozen=True, kw_only=True)
class PlayConfig:
    """An environment in the terminal.

    Args:
        environment: Who answers, by name or import path.
        model: Who plays, while you watch; null lets you play.
        data: Its `eval`, or its `train` where that is not set, has the prompts; none for an environment that begins on
            its own.
        sampling: Of the model's turns.
        episodes: How many.
        seed: Of the episodes and of the sampling.
    """

    environment: EnvironmentSpec
    model: ModelConfig | None = None
    data: DataConfig = field(default_factory=DataConfig)
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(max_new_tokens=256, temperature=0.7))
    episodes: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        require_finite(self)
        require_not_negative(self, "seed")
        require_positive(self, "episodes")
        require(self.model is None or self.model.name_or_path is not None, NO_MODEL)
        require_only_read(self.model)


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Every reward component for the completions of a file.

    Args:
        input: JSONL with `prompt` and `completion` (and `reference`, for rewards that compare).
        output: The same rows with `reward` and `rewards` added.
        rewards: Reward components.
    """

    input: str
    output: str
    rewards: list[RewardSpec]

    def __post_init__(self) -> None:
        require_paths(self, "input", "output")
        require_another_file(self.output, self.input)


@with_old_names
@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """The evaluation before and after PPO; see EvaluateConfig.

    Args:
        prompts: How many held-out prompts; None takes all.
        num_generations: Responses per prompt.
        metrics: Rewards that are only measured, besides those that are trained on.
        pass_at_k: Report pass@1 to pass@num_generations, too.
        greedy: Decode one response to each prompt greedily, too.
        seed: Seed of the sampling.
    """

    prompts: int | None = None
    num_generations: int = 1
    metrics: list[RewardSpec] = field(default_factory=list)
    pass_at_k: PassConfig | None = None
    greedy: bool = False
    seed: int = 1234

    def __post_init__(self) -> None:
        require_finite(self)
        require_not_negative(self, "seed")
        require_positive(self, "prompts", "num_generations")


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """SFT, evaluation, PPO, evaluation, summary.

    Args:
        output_dir: The stages work in its folders sft/ and ppo/; summary.json, summary.md and plots lie in it.
        sft: The first stage; its output_dir is ignored. null leaves it out: PPO starts from its own model.
        ppo: The second stage; it starts from the SFT model and its output_dir is ignored.
        evaluation: Measurement on ppo.data.eval, before and after PPO.
        seed: Of both stages, which have none of their own.
    """

    output_dir: str = "runs/pipeline"
    sft: SFTConfig | None
    ppo: PPOConfig
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    seed: int = 0

    def __post_init__(self) -> None:
        require_finite(self)
        names = [spec.metric_name for spec in (*self.ppo.rewards, *self.evaluation.metrics)]
        require_passable(self.evaluation.pass_at_k, self.evaluation.num_generations, names, "evaluation.")
        require_paths(self, "output_dir")
        require_not_negative(self, "seed")
        require(
            self.sft is not None or self.ppo.model.name_or_path is not None,
            "sft is null and ppo.model.name_or_path is not set; one of the two has to say what PPO starts from",
        )
        require(
            self.sft is None or self.ppo.model.name_or_path is None,
            f"ppo.model.name_or_path is {self.ppo.model.name_or_path!r}, but PPO starts from what SFT makes; "
            "set sft.model.name_or_path, or sft: null",
        )
        for name, stage in {"sft": self.sft, "ppo": self.ppo}.items():
            require(
                stage is None or stage.seed in (0, self.seed),
                f"{name}.seed is {stage and stage.seed}, but a pipeline has one seed, which is {self.seed}; set seed",
            )
        require(
            self.ppo.data.eval is not None or (self.ppo.environment is not None and self.ppo.data.train is None),
            "ppo.data.eval is not set; a pipeline measures before and after on held-out prompts: name a file of them",
        )
