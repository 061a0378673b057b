"""What the stages that run a Hugging Face Trainer share: its arguments, and how it reports."""

from pathlib import Path
from typing import Any

from rlhf.config import RewardModelConfig, SFTConfig
from rlhf.progress import ProgressBar
from rlhf.runs import as_plain
from rlhf.tracking import Tracker


def training_arguments(config: SFTConfig | RewardModelConfig, folder: Path, device_type: str) -> dict[str, Any]:
    """Keyword arguments of transformers' TrainingArguments: our settings, and none of its own files and reports."""
    micro_batch_size = config.micro_batch_size or config.batch_size
    return {
        "output_dir": str(folder / "trainer"),
        "num_train_epochs": config.epochs,
        "per_device_train_batch_size": micro_batch_size,
        "gradient_accumulation_steps": config.batch_size // micro_batch_size,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": config.warmup_fraction,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "max_length": None,  # data.py has already seen to lengths
        "train_sampling_strategy": "group_by_length",
        "activation_checkpointing": config.model.gradient_checkpointing,
        "bf16": config.model.dtype == "bfloat16",
        "use_cpu": device_type == "cpu",
        "dataloader_pin_memory": device_type == "cuda",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # else a NaN loss is logged as 0
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "seed": config.seed,
    }


def run_trainer(trainer: Any, stage: str, folder: Path, config: Any, metrics: dict[str, str]) -> None:
    """Train with our progress bar and metrics files; `metrics` maps the trainer's names to ours."""
    from transformers import TrainerCallback
    from transformers.trainer_callback import PrinterCallback

    with Tracker(folder, stage, config.tracking, as_plain(config)) as tracker:

        class Reporter(TrainerCallback):
            def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                self.bar = ProgressBar(stage, state.max_steps, state.is_world_process_zero)
                self.bar.__enter__()

            def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
                if "loss" in logs:
                    ours = {name: logs[theirs] for theirs, name in metrics.items() if theirs in logs}
                    tracker.log(ours, state.global_step)
                    self.bar.advance(f"loss {logs['loss']:.3f}")

            def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                self.bar.__exit__(None, None, None)

        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Reporter())
        trainer.train()
