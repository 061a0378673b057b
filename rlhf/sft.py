"""Supervised fine-tuning with TRL's SFTTrainer: loss on the completion only, merged so that PPO starts from it."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.config import SFTConfig
from rlhf.data import TokenizedExample, load_examples, tokenize
from rlhf.errors import UserError
from rlhf.models import (
    build_from_scratch,
    context_length,
    disable_dropout,
    load_causal_lm,
    load_tokenizer,
    lora_adapters,
)
from rlhf.progress import ProgressBar
from rlhf.runs import as_plain, is_done, mark_done, open_run
from rlhf.tracking import Tracker

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback

MODEL_FOLDER = "model"


def run_sft(config: SFTConfig) -> Path:
    """Train, merge adapters if there are any, and write model and tokenizer; returns the model's folder.

    A finished run with the same config is not repeated.
    """
    folder = open_run(config.output_dir, config)
    if is_done(folder):
        return folder / MODEL_FOLDER
    started = time.monotonic()
    examples = load_examples(config.data.train, config.data.train_split)
    without = next((example for example in examples if example.completion is None), None)
    if without:
        raise UserError(f"{without.origin}: no completion; SFT needs one in every row")

    import transformers

    transformers.set_seed(config.seed)  # before the model: its weights, and LoRA's, depend on it
    model, tokenizer = _build(config, [f"{example.prompt}\n{example.completion}" for example in examples])
    tokenized = tokenize(examples, tokenizer, config.data, context_length(model))
    print(
        f"SFT on {len(tokenized)} of {len(examples)} pairs, {model.num_parameters() / 1e6:.1f}M parameters", flush=True
    )
    trained = _train(config, folder, model, tokenizer, tokenized)
    trained.save_pretrained(folder / MODEL_FOLDER)
    tokenizer.save_pretrained(folder / MODEL_FOLDER)
    mark_done(folder, time.monotonic() - started)
    return folder / MODEL_FOLDER


def _build(config: SFTConfig, texts: list[str]) -> "tuple[PreTrainedModel, PreTrainedTokenizerFast]":
    if config.model.scratch is not None:
        return build_from_scratch(config.model.scratch, texts)
    assert config.model.name_or_path is not None  # one of the two is set: SFTConfig checks
    return load_causal_lm(config.model), load_tokenizer(config.model.name_or_path)


def _train(
    config: SFTConfig,
    folder: Path,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerFast",
    examples: list[TokenizedExample],
) -> "PreTrainedModel":
    """Run TRL's trainer; returns the model with adapters merged in."""
    import trl

    micro_batch_size = config.micro_batch_size or config.batch_size
    arguments = trl.SFTConfig(
        output_dir=str(folder / "trainer"),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=micro_batch_size,
        gradient_accumulation_steps=config.batch_size // micro_batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup_fraction,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        max_length=None,  # data.py has already seen to lengths
        completion_only_loss=True,
        train_sampling_strategy="group_by_length",
        activation_checkpointing=config.model.gradient_checkpointing,
        bf16=config.model.dtype == "bfloat16",
        use_cpu=model.device.type == "cpu",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        dataloader_pin_memory=model.device.type == "cuda",
        disable_tqdm=True,
        seed=config.seed,
    )
    lora = lora_adapters(config.lora, model) if config.lora else None
    trainer = trl.SFTTrainer(
        model, args=arguments, train_dataset=_dataset(examples), processing_class=tokenizer, peft_config=lora
    )
    trainer.remove_callback(_callback_class("PrinterCallback"))
    disable_dropout(trainer.model)
    with Tracker(folder, "sft", config.tracking, as_plain(config)) as tracker:
        trainer.add_callback(_reporter(tracker))
        trainer.train()
    return trainer.model.merge_and_unload() if lora else trainer.model


def _dataset(examples: list[TokenizedExample]) -> "Dataset":
    """Token ids with a completion mask, as SFTTrainer takes them."""
    import datasets

    rows = [
        {
            "input_ids": e.prompt_ids + (e.completion_ids or []),
            "completion_mask": [0] * len(e.prompt_ids) + [1] * len(e.completion_ids or []),
        }
        for e in examples
    ]
    datasets.disable_progress_bars()
    return datasets.Dataset.from_list(rows)


def _callback_class(name: str) -> Any:
    import transformers.trainer_callback

    return getattr(transformers.trainer_callback, name)


def _reporter(tracker: Tracker) -> "TrainerCallback":
    """A callback that feeds our progress bar and metrics."""
    from transformers import TrainerCallback

    class Reporter(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.bar = ProgressBar("sft", state.max_steps, state.is_world_process_zero)
            self.bar.__enter__()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
            if "loss" in logs:
                names = {"loss": "sft/loss", "mean_token_accuracy": "sft/token_accuracy", "grad_norm": "sft/grad_norm"}
                metrics = {ours: logs[theirs] for theirs, ours in names.items() if theirs in logs}
                tracker.log(metrics | {"sft/learning_rate": logs["learning_rate"]}, state.global_step)
                self.bar.advance(f"loss {logs['loss']:.3f}")

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.bar.__exit__(None, None, None)

    return Reporter()
