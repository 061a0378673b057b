"""Supervised fine-tuning with TRL's SFTTrainer: loss on the completion only, merged so that PPO starts from it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.config import SFTConfig
from rlhf.data.assistant_turns import assistant_mask, has_earlier_answers
from rlhf.data.examples import TokenizedExample, load_held_out, load_training, tokenize, warn_of_leak
from rlhf.data.parsing import Example
from rlhf.data.rendering import Rendering
from rlhf.errors import UserError
from rlhf.evaluation.completions import Row, completion_means
from rlhf.evaluation.held_out import HeldOut
from rlhf.models.adapters import merge, merged_copy
from rlhf.models.dropout import disable_dropout, require_no_noise
from rlhf.models.load import build_from_scratch, load_causal_lm, lora_adapters
from rlhf.models.precision import chooses_dtype
from rlhf.models.shape import context_length
from rlhf.models.tokenizer import load_tokenizer, require_known_tokens
from rlhf.parallel.ranks import Ranks
from rlhf.report.model_card import CARD_FILE, sft_card
from rlhf.runs.files import read_jsonl, staged
from rlhf.runs.folder import METRICS_FILE
from rlhf.sampling.stopping import stop_token_ids
from rlhf.stages.frame import join_data_parallel, run_once
from rlhf.stages.hf_trainer import dtype_of_weights, run_trainer, trainer_class, training_arguments

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

MODEL_FOLDER, BEST_FOLDER = "model", "model-best"
METRICS = {
    "loss": "sft/loss",
    "mean_token_accuracy": "sft/token_accuracy",
    "grad_norm": "sft/grad_norm",
    "learning_rate": "sft/learning_rate",
    "skipped_steps": "sft/skipped_steps",
}


@chooses_dtype
def run_sft(config: SFTConfig) -> Path:
    """Train, merge adapters if there are any, and write model and tokenizer; returns the model's folder.

    A finished run with the same config is not repeated, an interrupted one continues from its latest checkpoint.
    """
    ranks = join_data_parallel("sft", config.num_processes)
    return run_once(config, ranks, MODEL_FOLDER, lambda folder: _run(config, folder, ranks))


def _run(config: SFTConfig, folder: Path, ranks: Ranks) -> None:
    examples = load_training(config.data, text_is_answer=True)
    require_completions(examples)
    if config.train_on == "all" and not any(map(has_earlier_answers, examples)):
        raise UserError("train_on is all, but no row has an answer before its last; use train_on last")
    held_out = load_held_out(config.data, text_is_answer=True)
    warn_of_leak(examples, held_out)

    import transformers

    transformers.set_seed(config.seed)  # before the model: its weights, and LoRA's, depend on it
    model, tokenizer = _build(config, [_text(example) for example in examples])
    tokenized = tokenize(examples, tokenizer, config.data, context_length(model))
    require_known_tokens(model, tokenizer, (e.prompt_ids + (e.completion_ids or []) for e in tokenized))
    size = f"{model.num_parameters() / 1e6:.1f}M parameters"
    if ranks.is_first:
        print(f"SFT on {len(tokenized)} of {len(examples)} pairs, {size}", flush=True)
    stop_ids = stop_token_ids(model, tokenizer)  # now: the Hugging Face Trainer keeps EOS alone in the model's config
    measured: list[Row] = []
    if config.evaluation is not None:
        require_completions(held_out)
        measured = _rows(config, tokenizer, tokenize(held_out, tokenizer, config.data, context_length(model)))

    def write(trained: "PreTrainedModel", staging: Path) -> None:
        trained.generation_config.eos_token_id = stop_ids
        trained.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        (staging / CARD_FILE).write_text(sft_card(config, read_jsonl(folder / METRICS_FILE)), encoding="utf-8")

    trained = _train(config, folder, model, tokenizer, _rows(config, tokenizer, tokenized), measured, write)
    if ranks.is_first:
        with staged(folder / MODEL_FOLDER) as staging:
            write(trained, staging)


def require_completions(examples: list[Example]) -> None:
    """Raise UserError for a row that there is nothing to learn from."""
    without = next((example for example in examples if example.completion is None), None)
    if without:
        raise UserError(f"{without.origin}: no completion; SFT needs one in every row")


def _build(config: SFTConfig, texts: list[str]) -> "tuple[PreTrainedModel, PreTrainedTokenizerFast]":
    if config.model.scratch is not None:
        return build_from_scratch(config.model.scratch, texts)
    assert config.model.name_or_path is not None  # one of the two is set: SFTConfig checks
    tokenizer = load_tokenizer(config.model.name_or_path, config.model.trust_remote_code, config.model.gguf_file)
    return load_causal_lm(replace(config.model, dtype=dtype_of_weights(config))), tokenizer


def _train(
    config: SFTConfig,
    folder: Path,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerFast",
    rows: list[Row],
    measured: list[Row],
    write: Callable[["PreTrainedModel", Path], None],
) -> "PreTrainedModel":
    """Run TRL's trainer; returns the model with adapters merged in. The best one by `measured` rows is written, too."""
    import trl

    arguments = trl.SFTConfig(completion_only_loss=True, **training_arguments(config, folder, model.device.type))
    lora = lora_adapters(config.lora, model) if config.lora else None
    trainer = trainer_class(trl.SFTTrainer, config)(
        model, args=arguments, train_dataset=_dataset(rows), processing_class=tokenizer, peft_config=lora
    )
    disable_dropout(trainer.model)
    require_no_noise(trainer.model)
    ranks = Ranks.of(trainer.accelerator)
    mine = measured[: config.evaluation.rows if config.evaluation else 0]
    mine = mine[ranks.share(len(mine))]
    held_out = HeldOut(
        config.evaluation,
        "step",
        ranks,
        lambda: completion_means(trainer.model, mine, arguments.per_device_train_batch_size, ranks),
        lambda staging: write(merged_copy(trainer.model), staging),
        folder / BEST_FOLDER,
    )
    run_trainer(trainer, "sft", folder, config, METRICS, held_out)
    return merge(trainer.model) if lora else trainer.model


def _text(example: Example) -> str:
    """All that a row says, for a tokenizer to be trained on."""
    said = [turn["content"] for turn in example.turns] or [example.prompt]
    return "\n".join([*said, str(example.completion)])


def _rows(config: SFTConfig, tokenizer: "PreTrainedTokenizerFast", examples: list[TokenizedExample]) -> list[Row]:
    """Token ids with a mask of what is trained on."""
    rendering = Rendering.of(config.data)
    rows = []
    for e in examples:
        completion = e.completion_ids or []
        if config.train_on == "all":
            in_prompt = [int(is_answer) for is_answer in assistant_mask(tokenizer, e.example, rendering)]
        else:
            in_prompt = [0] * len(e.prompt_ids)
        rows.append(Row(e.prompt_ids + completion, in_prompt + [1] * len(completion)))
    return rows


def _dataset(rows: list[Row]) -> "Dataset":
    """The rows as SFTTrainer takes them."""
    import datasets

    datasets.disable_progress_bars()
    return datasets.Dataset.from_list([row._asdict() for row in rows])
