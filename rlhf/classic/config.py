"""PPOConfig with the fields of TRL 0.11, and what they are in this project's own configuration."""

import inspect
import math
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

import rlhf.config as native
from rlhf.config.checks import require, require_divides, require_not_negative, require_positive
from rlhf.config.rewards import RewardSpec

SHARES, ABOVE_0 = ("gamma", "lam"), ("cliprange", "cliprange_value", "score_clip")
"""Numbers from 0 to 1, and such as must be greater than 0 and finite."""
KL_ESTIMATORS: dict[str, native.KLEstimator] = {"kl": "k1", "mse": "k2", "abs": "abs", "full": "exact"}


@dataclass(kw_only=True)
class PPOConfig:
    """Settings of the classic loop; names and defaults are those of TRL 0.11, batch sizes are per process.

    What is assigned later acts from the next `step` on, or raises there if the trainer was built with the old value.

    Args:
        exp_name: Goes to the tracker with all other fields; the script's name.
        task_name: Likewise.
        model_name: Likewise; the model itself is the trainer's `model`.
        query_dataset: Likewise.
        reward_model: Likewise.
        seed: Seeds sampling and the order of minibatches.
        log_with: Tracker of accelerate that `log_stats` writes to: wandb, tensorboard, ...
        tracker_project_name: Its project.
        tracker_kwargs: For its start, by tracker.
        project_kwargs: For accelerate's ProjectConfiguration.
        accelerator_kwargs: For accelerate's Accelerator.
        remove_unused_columns: Keep only those dataset columns that the model takes, and label, query and response.
        steps: Responses in all; only `total_ppo_epochs` follows from it.
        learning_rate: Of policy and value head.
        adap_kl_ctrl: Steer the KL coefficient; else it stays at init_kl_coef.
        init_kl_coef: First KL coefficient.
        kl_penalty: kl (k1), mse (k2), abs, or full: over the whole vocabulary, for two more forward passes per step.
        target: Nats per response that the KL coefficient is steered to.
        horizon: Responses over which it reacts.
        gamma: Discount.
        lam: GAE's lambda.
        cliprange: Of the policy ratio.
        cliprange_value: Of the value.
        vf_coef: Weight of the value loss.
        batch_size: Responses per `step` and per batch of the dataloader.
        mini_batch_size: Responses per forward pass.
        gradient_accumulation_steps: Forward passes per optimizer step.
        ppo_epochs: Passes over each batch.
        max_grad_norm: The gradients of policy and value head are each scaled down to this norm; None leaves them.
        early_stopping: End the epochs of a step where the policy has moved too far from the one that sampled.
        target_kl: Too far, with early_stopping, is 1.5 times this, in nats per token.
        use_score_scaling: Divide scores by the standard deviation of all scores so far.
        use_score_norm: With use_score_scaling, also subtract their mean.
        score_clip: Then clamp scores to plus or minus this.
        whiten_rewards: Scale the per-token rewards to unit variance over the batch.
        gradient_checkpointing: Trade compute for activation memory.
        temperature: Logits are divided by it in the update; 1, as in TRL, whatever `generate` samples with. Give both
            the same.
        ratio_threshold: Skip minibatches whose mean ratio is above this.
        push_to_hub_if_best_kwargs: For `push_to_hub`, which is called where the mean score of a step is the best so
            far; repo_id has to be among them.
        compare_steps: Look for that in every compare_steps-th step only.
        optimize_device_cache: Empty the accelerator's cache after each `generate` and `step`.
        optimize_cuda_cache: Its older name.
        forward_batch_size: Older name of mini_batch_size, which it replaces.
        world_size: Filled in by the trainer, as are is_encoder_decoder and is_peft_model.
        is_encoder_decoder: Filled in.
        is_peft_model: Filled in.
        dataset_num_proc: No effect, as in TRL: nothing is mapped here.
    """

    exp_name: str = field(default_factory=lambda: Path(sys.argv[0]).stem)
    task_name: str | None = None
    model_name: str | None = "gpt2"
    query_dataset: str | None = "stanfordnlp/imdb"
    reward_model: str | None = "sentiment-analysis:lvwerra/distilbert-imdb"
    seed: int = 0
    log_with: str | None = None
    tracker_project_name: str = "trl"
    tracker_kwargs: dict[str, Any] = field(default_factory=dict)
    project_kwargs: dict[str, Any] = field(default_factory=dict)
    accelerator_kwargs: dict[str, Any] = field(default_factory=dict)
    remove_unused_columns: bool = True
    steps: int = 20000
    learning_rate: float = 1.41e-5
    adap_kl_ctrl: bool = True
    init_kl_coef: float = 0.2
    kl_penalty: Literal["kl", "abs", "mse", "full"] = "kl"
    target: float = 6.0
    horizon: float = 10000.0
    gamma: float = 1.0
    lam: float = 0.95
    cliprange: float = 0.2
    cliprange_value: float = 0.2
    vf_coef: float = 0.1
    batch_size: int = 128
    mini_batch_size: int = 128
    gradient_accumulation_steps: int = 1
    ppo_epochs: int = 4
    max_grad_norm: float | None = None
    early_stopping: bool = False
    target_kl: float = 1.0
    use_score_scaling: bool = False
    use_score_norm: bool = False
    score_clip: float | None = None
    whiten_rewards: bool = False
    gradient_checkpointing: bool = False
    temperature: float = 1.0
    ratio_threshold: float = 10.0
    push_to_hub_if_best_kwargs: dict[str, Any] = field(default_factory=dict)
    compare_steps: int = 1
    optimize_device_cache: bool = False
    optimize_cuda_cache: bool | None = None
    forward_batch_size: int | None = None
    world_size: int | None = None
    is_encoder_decoder: bool | None = None
    is_peft_model: bool | None = None
    dataset_num_proc: int | None = None

    def __new__(cls, *values: Any, **settings: Any) -> Self:
        """Raise UserError for a name that is no setting; TRL 0.12 and newer have others."""
        known = inspect.signature(cls.__init__).parameters
        unknown = [] if any(p.kind is p.VAR_KEYWORD for p in known.values()) else settings.keys() - known.keys()
        require(
            not unknown,
            f"PPOConfig has no setting {', '.join(sorted(unknown))}; those of TRL 0.12 and newer are settings of "
            "`rlhf ppo` (docs/how-to/migrate-from-trl.md), and for one of your own, declare it in a subclass",
        )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if self.forward_batch_size is not None:
            self.mini_batch_size = self.forward_batch_size
        if self.optimize_cuda_cache is not None:
            self.optimize_device_cache = self.optimize_cuda_cache
        self.check()
        if "target_kl" in self._changed() and not self.early_stopping:
            warnings.warn(
                f"PPOConfig.target_kl {self.target_kl} has no effect without early_stopping=True; "
                f"the KL coefficient is steered to target {self.target}",
                stacklevel=3,
            )
        if self.use_score_norm and not self.use_score_scaling:
            warnings.warn("PPOConfig.use_score_norm has no effect without use_score_scaling=True", stacklevel=3)
        if self.dataset_num_proc is not None:
            warnings.warn("PPOConfig.dataset_num_proc has no effect: the trainer does not map the dataset")

    def check(self) -> None:
        """Raise UserError for values that do not go together."""
        require_positive(
            self, "steps", "gradient_accumulation_steps", "temperature", "mini_batch_size", "target_kl", "batch_size",
            "compare_steps", "ratio_threshold",
        )  # fmt: skip
        for name in ("learning_rate", "init_kl_coef", "target", "horizon", *SHARES, *ABOVE_0):
            value = getattr(self, name)
            require(value is None or math.isfinite(value), f"{name} is {value}; it must be a finite number")
        require_positive(self, "learning_rate", "ppo_epochs", "max_grad_norm", *ABOVE_0)
        require_not_negative(self, "init_kl_coef", "vf_coef", "seed")
        if self._is_steered():
            require_positive(self, "target", "horizon")
        for name in SHARES:
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name} is {value}; it must be between 0 and 1")
        require(
            self.kl_penalty in KL_ESTIMATORS,
            f"kl_penalty is {self.kl_penalty!r}; it must be one of {', '.join(KL_ESTIMATORS)}",
        )
        require(
            not self.push_to_hub_if_best_kwargs or "repo_id" in self.push_to_hub_if_best_kwargs,
            "push_to_hub_if_best_kwargs has no repo_id; give the name of the repository to push to",
        )
        require(
            not self._is_steered() or self.batch_size < 5 * self.horizon,
            f"horizon is {self.horizon}, at most a fifth of batch_size {self.batch_size}, so that the KL coefficient "
            f"could turn negative; make it at least {self.batch_size}",
        )
        require_divides(
            "batch_size", self.batch_size, "mini_batch_size * gradient_accumulation_steps", self.backward_batch_size
        )

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field; raises UserError for a name that is none, which nothing would read."""
        require(
            name not in DERIVED,
            f"PPOConfig.{name} cannot be set: it follows from batch_size, mini_batch_size, steps, "
            "gradient_accumulation_steps and the number of processes",
        )
        require(
            hasattr(type(self), name) or name in {f.name for f in fields(self)},
            f"PPOConfig has no setting {name!r}; for one of your own, declare it in a subclass",
        )
        super().__setattr__(name, value)

    @property
    def backward_batch_size(self) -> int:
        """Responses per optimizer step and process."""
        return self.mini_batch_size * self.gradient_accumulation_steps

    @property
    def global_backward_batch_size(self) -> int:
        """Responses per optimizer step over all processes, once a trainer has filled in how many these are."""
        return self.backward_batch_size * (self.world_size or 1)

    @property
    def global_batch_size(self) -> int:
        """Responses per `step` over all processes, likewise."""
        return self.batch_size * (self.world_size or 1)

    @property
    def total_ppo_epochs(self) -> int:
        """Batches until `steps` responses were seen."""
        return math.ceil(self.steps / self.batch_size)

    def to_dict(self) -> dict[str, Any]:
        """All fields and what follows from them, for a tracker; keys of nested dictionaries are joined by slashes."""
        given: dict[str, Any] = asdict(self) | {name: getattr(self, name) for name in DERIVED}
        return dict(_flat(given))

    def to_native(self, num_processes: int = 1) -> native.PPOConfig:
        """The same settings for this project's own trainer, whose batch sizes are over all processes.

        Data and rewards are placeholders: queries, responses and scores come with each `step`.
        """
        normalization: Literal["none", "scale", "standardize"] = "none"
        if self.use_score_scaling:
            normalization = "standardize" if self.use_score_norm else "scale"
        return native.PPOConfig(
            data=native.DataConfig(train="queries"),
            rewards=[RewardSpec(path="classic.scores")],
            sampling=native.SamplingConfig(temperature=self.temperature),
            batch_size=self.batch_size * num_processes,
            num_ppo_epochs=self.ppo_epochs,
            mini_batch_size=self.backward_batch_size * num_processes,
            micro_batch_size=self.mini_batch_size,
            learning_rate=self.learning_rate,
            critic_learning_rate=self.learning_rate,
            lr_schedule="constant",
            max_grad_norm=math.inf if self.max_grad_norm is None else self.max_grad_norm,
            clip_range=self.cliprange,
            target_kl=1.5 * self.target_kl if self.early_stopping else None,
            value_clip_range=self.cliprange_value,
            vf_coef=self.vf_coef,
            gamma=self.gamma,
            gae_lambda=self.lam,
            critic="shared",
            kl_coef=self.init_kl_coef,
            kl_estimator=KL_ESTIMATORS[self.kl_penalty],
            adaptive_kl_target=self.target if self._is_steered() else None,
            adaptive_kl_horizon=round(self.horizon) if self._is_steered() else native.PPOConfig.adaptive_kl_horizon,
            score_normalization=normalization,
            score_clip=self.score_clip,
            whiten_rewards=self.whiten_rewards,
            seed=self.seed,
        )

    def _is_steered(self) -> bool:
        return self.adap_kl_ctrl and self.init_kl_coef > 0  # a factor leaves 0 as it is

    def _changed(self) -> set[str]:
        """Fields that differ from their defaults."""
        defaults = {f.name: f.default_factory() if callable(f.default_factory) else f.default for f in fields(self)}
        return {name for name, default in defaults.items() if getattr(self, name) != default}


DERIVED = [name for name, value in vars(PPOConfig).items() if isinstance(value, property)]
"""Numbers that follow from the fields."""


def _flat(nested: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in nested.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value
