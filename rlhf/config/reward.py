"""The reward stage: a model that learns what is preferred."""

from dataclasses import dataclass, field

from rlhf.config.checkpoint import CheckpointConfig
from rlhf.config.checks import require, require_divides, require_positive
from rlhf.config.common import DataConfig, LoraConfig, ModelConfig, TrackingConfig


@dataclass(frozen=True, kw_only=True)
class RewardModelConfig:
    """A scalar head on a language model, trained with LoRA to score the chosen completion above the rejected one.

    Args:
        output_dir: The merged model, its tokenizer and its normalisation land in its folder model/.
        model: What to start from: a folder written by `rlhf sft`, or any causal language model.
        data: Rows with prompt, chosen and rejected; `eval` is needed, to measure on.
        lora: Adapters, merged at the end; the head is trained in full.
        context_length: Lengthen a model with learned positions (GPT-2) to this many tokens; the positions are then
            trained too. None keeps the model's own.
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
        checkpoint: How often the state is saved, so that the same command continues an interrupted run.
        tracking: Metrics.
    """

    output_dir: str = "runs/reward"
    model: ModelConfig
    data: DataConfig
    lora: LoraConfig = field(default_factory=LoraConfig)
    context_length: int | None = None
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
    checkpoint: CheckpointConfig = field(default_factory=lambda: CheckpointConfig(every=200))
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        require_positive(self, "context_length", "epochs", "batch_size", "micro_batch_size", "learning_rate")
        require_positive(self, "max_grad_norm")
        require(self.mismatched >= 0, f"mismatched is {self.mismatched}; it must be at least 0")
        require_divides("batch_size", self.batch_size, "micro_batch_size", self.micro_batch_size or self.batch_size)
        require(
            self.model.name_or_path is not None,
            "model.name_or_path is not set; a reward model starts from a trained one: a folder or a hub name",
        )
        require(self.data.eval is not None, "data.eval is not set; a reward model is measured on held-out pairs")
