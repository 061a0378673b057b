"""The stages that run a Hugging Face Trainer: SFT and the reward model."""

from dataclasses import dataclass, field
from typing import Literal

from rlhf.config.checkpoint import CheckpointConfig
from rlhf.config.checks import (
    require,
    require_divides,
    require_finite,
    require_not_negative,
    require_paths,
    require_positive,
)
from rlhf.config.common import HubConfig, LoraConfig, ModelConfig, TrackingConfig
from rlhf.config.data import DataConfig
from rlhf.config.evaluation import RewardModelEvaluation, SFTEvaluation, require_held_out_data
from rlhf.config.renamed import with_old_names


@dataclass(frozen=True, kw_only=True)
class FineTuningConfig:
    """What SFT and reward models have in common.

    Args:
        output_dir: The merged model and its tokenizer land in its folder model/.
        model: What to start from.
        data: Training rows and held-out rows.
        lora: Train adapters, merged at the end; None trains all weights.
        num_train_epochs: Passes over the data.
        batch_size: Rows per optimizer step, over all processes.
        micro_batch_size: Rows per forward pass; None is the whole batch.
        learning_rate: Peak learning rate; cosine decay to 0 after the warm-up.
        warmup_fraction: Share of the steps during which the learning rate rises.
        weight_decay: Weight decay of AdamW.
        max_grad_norm: Clip the gradient norm to this value.
        seed: Seeds new weights and the order of the data.
        num_processes: Refuse to run on any other number of processes; None accepts any number.
        fast_paths: Use faster code of this package where there is some; false runs that of transformers, PEFT, TRL and
            PyTorch only.
        checkpoint: How often the state is saved, so that the same command continues an interrupted run.
        tracking: Where metrics go.
        push_to_hub: Upload the finished model; None keeps it here.
    """

    output_dir: str
    model: ModelConfig
    data: DataConfig
    lora: LoraConfig | None = None
    num_train_epochs: float = 1.0
    batch_size: int = 32
    micro_batch_size: int | None = None
    learning_rate: float = 5e-5
    warmup_fraction: float = 0.05
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    seed: int = 0
    num_processes: int | None = None
    fast_paths: bool = True
    checkpoint: CheckpointConfig = field(default_factory=lambda: CheckpointConfig(save_steps=200))
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    push_to_hub: HubConfig | None = None

    def __post_init__(self) -> None:
        require_finite(self)
        require_paths(self, "output_dir")
        require_not_negative(self, "seed", "weight_decay")
        require(0 <= self.warmup_fraction < 1, f"warmup_fraction is {self.warmup_fraction}; it must be in [0, 1)")
        require_positive(self, "num_train_epochs", "batch_size", "micro_batch_size", "learning_rate", "max_grad_norm")
        require_positive(self, "num_processes")
        self.data.require_train()
        require_divides("batch_size", self.batch_size, "micro_batch_size", self.micro_batch_size or self.batch_size)
        require(
            self.model.quantization is None,
            "model.quantization is 4bit, into which adapters cannot be merged at the end; "
            "remove it here, ppo, evaluate and generate take it",
        )


@with_old_names
@dataclass(frozen=True, kw_only=True)
class SFTConfig(FineTuningConfig):
    """Supervised fine-tuning on prompt/completion pairs, loss on the completion only; every row needs a completion.

    Args:
        train_on: last trains on the last answer of a row; all trains on every answer, each with the token that closes
            it.
        evaluation: Measurement on the rows of data.eval along the run, and the best model by it; null is off.
    """

    output_dir: str = "runs/sft"
    num_train_epochs: float = 3.0
    train_on: Literal["last", "all"] = "last"
    evaluation: SFTEvaluation | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.model.name_or_path is not None or self.model.scratch is not None,
            "model is empty; give model.name_or_path or model.scratch",
        )
        if self.evaluation is not None:
            require_held_out_data(self.data)


@with_old_names
@dataclass(frozen=True, kw_only=True)
class RewardModelConfig(FineTuningConfig):
    """A scalar head on a language model, trained to score the chosen completion above the rejected one.

    It starts from a folder written by `rlhf sft`, or any causal language model; rows have prompt, chosen and rejected,
    and `data.eval` is needed, to measure on. The head is trained in full, also with adapters.

    Args:
        mismatched: Extra pairs per row, in which the rejected side is the chosen completion of another row: they teach
            the model to read the prompt.
        group_by: Column of the held-out rows by which the accuracy is broken down.
        evaluation: Measurement on the held-out pairs along the run, and the best model by it; null is off.
    """

    output_dir: str = "runs/reward"
    lora: LoraConfig | None = field(default_factory=LoraConfig)
    learning_rate: float = 1e-4
    mismatched: float = 0.0
    group_by: str | None = None
    evaluation: RewardModelEvaluation | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative(self, "mismatched")
        require(
            self.model.name_or_path is not None,
            "model.name_or_path is not set; a reward model starts from a trained one: a folder or a hub name",
        )
        require(self.data.eval is not None, "data.eval is not set; a reward model is measured on held-out pairs")
