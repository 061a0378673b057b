"""The reward stage: a model that learns what is preferred."""

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
from rlhf.config.common import DataConfig, HubConfig, LoraConfig, ModelConfig, TrackingConfig


@dataclass(frozen=True, kw_only=True)
class RewardModelConfig:
    """A scalar head on a language model, trained to score the chosen completion above the rejected one.

    Args:
        output_dir: The merged model, its tokenizer and its normalisation land in its folder model/.
        model: What to start from: a folder written by `rlhf sft`, or any causal language model.
        data: Rows with prompt, chosen and rejected; `eval` is needed, to measure on.
        lora: Adapters, merged at the end; the head is trained in full. None trains all weights.
        mismatched: Extra pairs per row, in which the rejected side is the chosen completion of another row: they teach
            the model to read the prompt.
        epochs: Passes over the data.
        batch_size: Pairs per optimizer step, over all processes.
        micro_batch_size: Pairs per forward pass; None is the whole batch.
        learning_rate: Peak; cosine decay to 0 after the warm-up.
        warmup_fraction: Share of the steps with rising learning rate.
        weight_decay: AdamW's.
        max_grad_norm: Gradients are scaled down to this norm.
        group_by: Column of the held-out rows by which the accuracy is broken down.
        seed: Seeds head, adapters and data order.
        processes: Refuse to run on any other number of processes; None takes them as they are launched.
        checkpoint: How often the state is saved, so that the same command continues an interrupted run.
        tracking: Metrics.
        push_to_hub: Upload the finished model; None keeps it here.
    """

    output_dir: str = "runs/reward"
    model: ModelConfig
    data: DataConfig
    lora: LoraConfig | None = field(default_factory=LoraConfig)
    mismatched: float = 0.0
    epochs: float = 1.0
    batch_size: int = 32
    micro_batch_size: int | None = None
    learning_rate: float = 1e-4
    warmup_fraction: float = 0.05
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    group_by: str | None = None
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
        require(self.mismatched >= 0, f"mismatched is {self.mismatched}; it must be at least 0")
        require_divides("batch_size", self.batch_size, "micro_batch_size", self.micro_batch_size or self.batch_size)
        require(
            self.model.name_or_path is not None,
            "model.name_or_path is not set; a reward model starts from a trained one: a folder or a hub name",
        )
        require(self.data.eval is not None, "data.eval is not set; a reward model is measured on held-out pairs")
