"""The PPO stage."""

import math
import os
from dataclasses import dataclass, field
from typing import Any, Literal

from rlhf.config.checkpoint import CheckpointConfig
from rlhf.config.checks import (
    require,
    require_divides,
    require_finite,
    require_not_negative,
    require_paths,
    require_positive,
)
from rlhf.config.common import HubConfig, LoraConfig, ModelConfig, SamplingConfig, TrackingConfig
from rlhf.config.critic import Critic, ValueWarmup, require_critic, require_no_critic
from rlhf.config.data import DataConfig
from rlhf.config.environment import EnvironmentSpec, names_of_rewards
from rlhf.config.evaluation import PolicyEvaluation, require_held_out_data
from rlhf.config.generation import GenerationConfig, require_samplable
from rlhf.config.off_policy import require_corrected
from rlhf.config.renamed import with_old_names
from rlhf.config.rewards import RewardSpec, require_something_to_learn
from rlhf.config.steering import SLOW, require_steerable
from rlhf.config.watch import WatchConfig, require_untrained_gold

Advantage = Literal["gae", "rloo", "group_relative", "reward_per_token"]
Aggregation = Literal["token_mean", "sequence_mean"]
ImportanceCorrection = Literal["none", "token", "sequence"]
KLEstimator = Literal["k1", "k2", "k3", "abs", "exact"]
UPDATES, MINI_BATCH_SIZE = 100, 64
DERIVED: Any = None
"""The default of a setting that follows from others; the object itself always has a value."""
NO_REWARDS = "rewards is not set; give it in the config file, or as --rewards react_heuristic, or set environment"


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Responses to a few fixed prompts, stored token by token along the run for `rlhf report`.

    They are sampled besides the training batch and nothing is learned from them.

    Args:
        prompts: Number of prompts, from the start of the training data; 0 stores nothing.
        every: Updates between two of them; the first and the last update are always among them.
    """

    prompts: int = 4
    every: int = 10

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.prompts >= 0, f"inspect.prompts is {self.prompts}; it must be at least 0")
        require_positive(self, "every")


@with_old_names
@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Proximal policy optimization with a value head and a KL penalty against the reference.

    Args:
        output_dir: Metrics, samples and the trained policy land here.
        model: The reference; a folder written by `rlhf sft`, or any causal language model.
        data: Prompts; a completion, where there is one, reaches the rewards as column `reference`.
        rewards: Components of the score, summed with their weights; with an environment there need be none.
        environment: Episodes of several turns with it, whose rewards are a component of the score; null is a response
            to each prompt.
        lora: The policy's adapters (and the critic's, if it has any); null trains all weights of the model, in
            float32, with a frozen copy as the reference: three times the memory, which FSDP2 divides, and a learning
            rate of 1e-6 to 1e-5.
        sampling: Rollout sampling.
        generation: What decodes the responses: this package, or vLLM.
        num_updates: Number of updates, each on a new batch unless reuse_batch is set; by default 100, or what
            total_episodes comes to.
        total_episodes: Responses to sample in all, another way to say num_updates: divided by batch_size, rounded up,
            times reuse_batch.
        batch_size: Responses per update, over all processes.
        rollout_batch_size: Responses sampled at once per process; the rewards see one such batch at a time, while the
            next is sampled. None samples all at once.
        num_generations: Responses per prompt; must divide batch_size.
        num_ppo_epochs: Passes over each rollout.
        reuse_batch: Updates that learn from each sampled batch. From its second on, nothing is sampled or scored;
            log-probabilities, values and advantages are computed anew by the networks as they are then, and
            importance_correction, which has to be set, makes up for the age of the responses.
        mini_batch_size: Responses per optimizer step, over all processes; by default 64, or batch_size if that is less.
        micro_batch_size: Responses per forward pass and process; the gradient does not depend on it.
        learning_rate: Learning rate of the policy's adapters, or of all its weights.
        critic_learning_rate: Learning rate of the value head, and of the critic's adapters or weights.
        lr_schedule: constant, or linear decay to 0 over the updates.
        max_grad_norm: Clip the gradient norms of policy and critic, each to this value.
        max_skipped_steps: Stop once more than this many optimizer steps in a row were skipped because the loss or a
            gradient was not finite; the minibatch is saved.
        clip_range: The policy ratio is clipped to 1 plus or minus this.
        dual_clip: Bounds the policy loss by -dual_clip * advantage where that is negative (above 1); None is off.
        loss_aggregation: token_mean: every token of a minibatch weighs the same; sequence_mean: every response does.
        importance_correction: Weight the policy loss by the ratio of the probabilities that policy and sampler give to
            the sampled tokens: per token, or per response. The two differ by rounding with a base in bfloat16, or with
            vLLM, and by the updates in between with reuse_batch or generation.overlap; sampling/kl says by how much.
            none leaves the loss as it is.
        importance_cap: Largest value of that weight.
        target_kl: End the epochs of an update once the policy has moved further than this from the one that the
            update began with, in nats per token (k2 estimate, over the minibatch); None for no limit.
        value_clip_range: The new value is clipped to the old one plus or minus this; None turns value clipping off.
        vf_coef: Weight of the value loss.
        entropy_coef: Weight of the entropy bonus.
        advantage: gae, with the critic. Without one, from the score minus the KL penalty: rloo and group_relative
            compare it with the other samples of the same prompt, reward_per_token spreads it over the tokens.
        gamma: Discount factor.
        gae_lambda: Lambda of generalized advantage estimation.
        whiten_advantages: Whiten advantages over the batch: mean 0, variance 1.
        critic: shared (value gradients reach the policy's adapters), detached (a head on frozen features), adapter
            (adapters of its own), branch (adapters of its own on the last critic_layers blocks, which go on from the
            policy's hidden state), separate (with lora null: a trunk of its own, at first a copy of the policy's).
        critic_layers: With critic branch, how many blocks are in the branch; null is a quarter of them, at least one.
        keep_critic: Start with the critic stored in the folder of the model by an earlier `rlhf ppo` (or TRL), instead
            of a new one.
        value_warmup: Critic-only updates at the start.
        kl_coef: Weight of the KL penalty in the reward (its first value, if adaptive).
        kl_estimator: Per-token estimator of the KL; exact takes it over the whole vocabulary instead, for two more
            forward passes per update.
        adaptive_kl_target: Adapt kl_coef, after each new batch, so that the KL per response approaches this many nats;
            None keeps it fixed.
        adaptive_kl_horizon: Responses over which the adaptive coefficient reacts.
        missing_eos_penalty: Subtracted from the score of a response that was cut off.
        score_normalization: scale divides scores by the standard deviation of all scores so far, standardize also
            subtracts their mean.
        score_clip: Clamp scores to plus or minus this after normalization; None is no clipping.
        whiten_rewards: Scale the per-token rewards to unit variance over the batch, about their mean.
        seed: Seeds adapters, prompt order and sampling.
        num_processes: Refuse to run on any other number of processes; None accepts any number.
        fast_paths: Use faster code of this package where there is some; false runs that of transformers, PEFT and
            PyTorch only.
        evaluation: Measurement on the prompts of data.eval along the run, and the best policy by it; null is off and
            costs nothing.
        checkpoint: How often the run is saved, to be continued by the same command.
        watch: When to warn.
        inspect: Rollouts that are stored in full, for the report.
        tracking: Where metrics go.
        push_to_hub: Upload the finished model; None keeps it here.
    """

    output_dir: str = "runs/ppo"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig
    rewards: list[RewardSpec] = DERIVED
    environment: EnvironmentSpec | None = None
    lora: LoraConfig | None = field(default_factory=LoraConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    num_updates: int = DERIVED
    total_episodes: int | None = None
    batch_size: int = 64
    rollout_batch_size: int | None = None
    num_generations: int = 1
    num_ppo_epochs: int = 4
    reuse_batch: int = 1
    mini_batch_size: int = DERIVED
    micro_batch_size: int = 16
    learning_rate: float = 1e-4
    critic_learning_rate: float = 1e-3
    lr_schedule: Literal["constant", "linear"] = "linear"
    max_grad_norm: float = 1.0
    max_skipped_steps: int = 8
    clip_range: float = 0.2
    dual_clip: float | None = None
    loss_aggregation: Aggregation = "token_mean"
    importance_correction: ImportanceCorrection = "none"
    importance_cap: float = 2.0
    target_kl: float | None = None
    value_clip_range: float | None = 0.2
    vf_coef: float = 0.5
    entropy_coef: float = 0.0
    advantage: Advantage = "gae"
    gamma: float = 1.0
    gae_lambda: float = 0.95
    whiten_advantages: bool = True
    critic: Critic = "adapter"
    critic_layers: int | None = None
    keep_critic: bool = False
    value_warmup: ValueWarmup = field(default_factory=ValueWarmup)
    kl_coef: float = 0.05
    kl_estimator: KLEstimator = "k1"
    adaptive_kl_target: float | None = None
    adaptive_kl_horizon: int = SLOW
    missing_eos_penalty: float = 0.0
    score_normalization: Literal["none", "scale", "standardize"] = "none"
    score_clip: float | None = None
    whiten_rewards: bool = False
    seed: int = 0
    num_processes: int | None = None
    fast_paths: bool = True
    evaluation: PolicyEvaluation | None = None
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    inspect: InspectConfig = field(default_factory=InspectConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    push_to_hub: HubConfig | None = None

    def __post_init__(self) -> None:
        self._derive()
        require_finite(self, except_for="max_grad_norm")  # infinity is no clipping
        require_paths(self, "output_dir")
        require_not_negative(self, "seed", "vf_coef", "entropy_coef", "kl_coef", "max_skipped_steps")
        require_not_negative(self, "missing_eos_penalty")
        require_positive(self, "num_updates", "batch_size", "num_generations", "num_ppo_epochs", "mini_batch_size")
        require_positive(self, "micro_batch_size", "learning_rate", "critic_learning_rate", "max_grad_norm")
        require_positive(self, "clip_range", "value_clip_range", "adaptive_kl_target", "adaptive_kl_horizon")
        require_positive(self, "target_kl", "num_processes", "rollout_batch_size", "score_clip", "importance_cap")
        require_positive(self, "critic_layers")
        require_steerable(self.kl_coef, self.adaptive_kl_target, self.adaptive_kl_horizon, self.batch_size)
        require_divides("batch_size", self.batch_size, "num_generations", self.num_generations)
        require(
            self.mini_batch_size <= self.batch_size,
            f"mini_batch_size {self.mini_batch_size} is larger than batch_size {self.batch_size}; make it at most that",
        )
        require_something_to_learn(self.rewards, self.environment is not None)
        require(
            self.num_generations > 1 or self.advantage not in ("rloo", "group_relative"),
            f"num_generations is 1; advantage {self.advantage} compares samples of one prompt: at least 2",
        )
        require(
            self.dual_clip is None or self.dual_clip > 1, f"dual_clip is {self.dual_clip}; it must be greater than 1"
        )
        require(
            self.environment is None or (self.score_normalization == "none" and self.score_clip is None),
            "score_normalization and score_clip would change what an episode earned, but not what its turns earned; "
            "with an environment leave them out (whiten_rewards scales both)",
        )
        require_untrained_gold(self.watch, self.rewards)
        if self.evaluation is not None:
            if self.environment is None or self.data.train is not None:
                require_held_out_data(self.data)
            self.evaluation.require_measurable(names_of_rewards(self.environment, self.rewards))
        for name in ("gamma", "gae_lambda"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name} is {value}; it must be between 0 and 1")
        require(
            self.sampling.temperature > 0, "sampling.temperature is 0; PPO has to sample, so it must be greater than 0"
        )
        require(
            self.sampling.top_p == 1,
            f"sampling.top_p is {self.sampling.top_p}; PPO must sample from the distribution it optimizes: 1.0",
        )
        require_samplable(self.generation, self.sampling, self.model, self.lora is not None)
        require_corrected(self)
        require_critic(self.critic, self.critic_layers, with_adapters=self.lora is not None, is_used=self.uses_critic)
        if not self.uses_critic:
            require_no_critic(self)
        require_trainable(self.lora, self.model)

    def _derive(self) -> None:
        """Give the settings that nobody has set the value that follows from others."""
        require_positive(self, "batch_size", "total_episodes", "reuse_batch")
        require(self.rewards is not None or self.environment is not None, NO_REWARDS)
        if self.rewards is None:
            object.__setattr__(self, "rewards", [])
        wanted, n_uses = UPDATES, self.reuse_batch
        if self.total_episodes is not None:
            wanted = math.ceil(self.total_episodes / self.batch_size) * n_uses
        derived = {"num_updates": wanted, "mini_batch_size": min(MINI_BATCH_SIZE, self.batch_size)}
        for name, value in derived.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        each = f", each for {n_uses} updates," if n_uses > 1 else ""
        require(
            self.total_episodes is None or self.num_updates == wanted,
            f"num_updates is {self.num_updates}, but total_episodes {self.total_episodes} in batches of "
            f"{self.batch_size}{each} are {wanted}; keep one of the two",
        )

    @property
    def response_limit(self) -> int:
        """Tokens of its own after which the policy is cut off, over all turns."""
        return self.sampling.max_new_tokens * (1 if self.environment is None else self.environment.max_turns)

    @property
    def uses_critic(self) -> bool:
        """Whether the advantage needs values."""
        return self.advantage == "gae"


def require_trainable(lora: LoraConfig | None, model: ModelConfig) -> None:
    """Raise UserError for weights that cannot be trained as they are.

    Where FSDP divides them they are float32 and multiplied in bfloat16 (see `rlhf.models.divided`); so those may be.
    """
    is_divided = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    require(
        lora is not None or (model.quantization is None and (model.dtype == "float32" or is_divided)),
        f"lora is null, which trains all weights, but model.dtype is {model.dtype}"
        f"{', which may be bfloat16,' if model.dtype == 'auto' else ''}"
        f"{f' and model.quantization {model.quantization}' if model.quantization else ''}; steps would be lost to "
        "rounding: use float32 without quantization (under FSDP2 bfloat16 too), or lora",
    )
