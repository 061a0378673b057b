"""Supervised fine-tuning with TRL's SFTTrainer: loss on the completion only, merged so that PPO starts from it."""

from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.config import SFTConfig
from rlhf.data.examples import TokenizedExample, load_examples, load_held_out, tokenize, warn_of_leak
from rlhf.errors import UserError
from rlhf.models.load import build_from_scratch, context_length, disable_dropout, load_causal_lm, lora_adapters
from rlhf.models.tokenizer import load_tokenizer
from rlhf.parallel.ranks import Ranks
from rlhf.report.model_card import CARD_FILE, sft_card
from rlhf.runs.files import read_jsonl, staged
from rlhf.runs.folder import METRICS_FILE
from rlhf.stages.frame import join_data_parallel, run_once
from rlhf.stages.hf_trainer import run_trainer, training_arguments
from rlhf.stages.resumable import resumable

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

MODEL_FOLDER = "model"
METRICS = {
    "loss": "sft/loss",
    "mean_token_accuracy": "sft/token_accuracy",
    "grad_norm": "sft/grad_norm",
    "learning_rate": "sft/learning_rate",
    "skipped_steps": "sft/skipped_steps",
}


def run_sft(config: SFTConfig) -> Path:
    """Train, merge adapters if there are any, and write model and tokenizer; returns the model's folder.

    A finished run with the same config is not repeated, an interrupted one continues from its latest checkpoint.
    """
    ranks = join_data_parallel("sft", config.num_processes)
    return run_once(config, ranks, MODEL_FOLDER, lambda folder: _run(config, folder, ranks))


def _run(config: SFTConfig, folder: Path, ranks: Ranks) -> None:
    examples = load_examples(*config.data.training)
    without = next((example for example in examples if example.completion is None), None)
    if without:
        raise UserError(f"{without.origin}: no completion; SFT needs one in every row")
    warn_of_leak(examples, load_held_out(config.data))

    import transformers

    transformers.set_seed(config.seed)  # before the model: its weights, and LoRA's, depend on it
    model, tokenizer = _build(config, [f"{example.prompt}\n{example.completion}" for example in examples])
    tokenized = tokenize(examples, tokenizer, config.data, context_length(model))
    size = f"{model.num_parameters() / 1e6:.1f}M parameters"
    if ranks.is_first:
        print(f"SFT on {len(tokenized)} of {len(examples)} pairs, {size}", flush=True)
    trained = _train(config, folder, model, tokenizer, tokenized)
    if not ranks.is_first:
        return
    with staged(folder / MODEL_FOLDER) as staging:
        trained.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        (staging / CARD_FILE).write_text(sft_card(config, read_jsonl(folder / METRICS_FILE)), encoding="utf-8")


def _build(config: SFTConfig, texts: list[str]) -> "tuple[PreTrainedModel, PreTrainedTokenizerFast]":
    if config.model.scratch is not None:
        return build_from_scratch(config.model.scratch, texts)
    assert config.model.name_or_path is not None  # one of the two is set: SFTConfig checks
    tokenizer = load_tokenizer(config.model.name_or_path, config.model.trust_remote_code, config.model.gguf_file)
    return load_causal_lm(config.model), tokenizer


def _train(
    config: SFTConfig,
    folder: Path,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerFast",
    examples: list[TokenizedExample],
) -> "PreTrainedModel":
    """Run TRL's trainer; returns the model with adapters merged in."""
    import trl

    arguments = trl.SFTConfig(completion_only_loss=True, **training_arguments(config, folder, model.device.type))
    lora = lora_adapters(config.lora, model) if config.lora else None
    trainer = resumable(trl.SFTTrainer)(
        model, args=arguments, train_dataset=_dataset(examples), processing_class=tokenizer, peft_config=lora
    )
    disable_dropout(trainer.model)
    run_trainer(trainer, "sft", folder, config, METRICS)
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
