"""A reward model from preferences, with TRL's RewardTrainer: a scalar head on LoRA or all weights, normalized."""

import json
import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.config import RewardModelConfig
from rlhf.config.checks import require
from rlhf.data.examples import warn_of_leak
from rlhf.data.preferences import (
    TokenizedPair,
    load_held_out_pairs,
    load_training_pairs,
    mismatched,
    tokenize_pairs,
)
from rlhf.data.rendering import Rendering
from rlhf.evaluation.best import Means
from rlhf.evaluation.held_out import HeldOut
from rlhf.models.adapters import merge, merged_copy
from rlhf.models.dropout import disable_dropout, require_no_noise
from rlhf.models.load import default_device, lora_adapters
from rlhf.models.precision import chooses_dtype
from rlhf.models.pretrained import load_pretrained
from rlhf.models.shape import context_length
from rlhf.models.tokenizer import load_tokenizer, require_known_tokens
from rlhf.parallel.ranks import Ranks
from rlhf.report.calibration import accuracies, measure, plot_calibration, plot_margins, show
from rlhf.report.model_card import CARD_FILE, reward_card
from rlhf.rewards.learned import SETTINGS_FILE, Settings, score_ids
from rlhf.runs.files import read_jsonl, staged, write_atomically
from rlhf.runs.folder import METRICS_FILE
from rlhf.stages.frame import join_data_parallel, run_once
from rlhf.stages.hf_trainer import dtype_of_weights, run_trainer, trainer_class, training_arguments

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

MODEL_FOLDER, BEST_FOLDER, SUMMARY_FILE = "model", "model-best", "summary.json"
REFERENCE, REFERENCE_PAIRS = "the chosen and rejected training texts", 1000
METRICS = {
    "loss": "reward/loss", "accuracy": "reward/accuracy", "margin": "reward/margin", "grad_norm": "reward/grad_norm",
    "learning_rate": "reward/learning_rate", "skipped_steps": "reward/skipped_steps",
}  # fmt: skip


@chooses_dtype
def run_reward(config: RewardModelConfig) -> Path:
    """Train, measure on the held-out pairs, and write the merged model with its normalization; returns its folder.

    A finished run with the same config is not repeated: its summary is shown again. An interrupted one continues from
    its latest checkpoint.
    """
    ranks = join_data_parallel("reward", config.num_processes)
    model_folder = run_once(config, ranks, MODEL_FOLDER, lambda folder: _run(config, folder, ranks))
    if ranks.is_first:
        show(json.loads((model_folder.parent / SUMMARY_FILE).read_text(encoding="utf-8")), model_folder.parent)
    return model_folder


def _run(config: RewardModelConfig, folder: Path, ranks: Ranks) -> None:
    import transformers

    pairs = load_training_pairs(config.data)  # first: a bad row must not cost a model load
    n_mismatched = round(config.mismatched * len(pairs)) or int(config.mismatched > 0)
    wrong_prompts = mismatched(pairs, n_mismatched, config.seed)
    require(
        config.mismatched == 0 or bool(wrong_prompts),
        f"mismatched is {config.mismatched}, but all rows have one prompt; set it to 0",
    )
    pairs += wrong_prompts
    held_out_pairs = load_held_out_pairs(config.data)
    warn_of_leak([chosen for chosen, _ in pairs], [chosen for chosen, _ in held_out_pairs])
    require(
        config.group_by is None or any(config.group_by in chosen.columns for chosen, _ in held_out_pairs),
        f"group_by is {config.group_by!r}, but the held-out rows have no such column",
    )
    transformers.set_seed(config.seed)  # before the model: the head and LoRA's init depend on it
    model, tokenizer = _build(config)
    train = tokenize_pairs(pairs, tokenizer, config.data, context_length(model))
    held_out = tokenize_pairs(held_out_pairs, tokenizer, config.data, context_length(model))
    require_known_tokens(model, tokenizer, (p.chosen_ids + p.rejected_ids for p in [*train, *held_out]))
    if ranks.is_first:
        print(
            f"reward model on {len(train)} of {len(pairs)} pairs, held out {len(held_out)} of {len(held_out_pairs)}, "
            f"{model.num_parameters() / 1e6:.1f}M parameters",
            flush=True,
        )
    texts_only = not any(chosen.is_conversation for chosen, _ in pairs)
    left_out = len(held_out_pairs) - len(held_out)

    def write(trained: "PreTrainedModel", staging: Path) -> tuple[list[float], dict[str, Any]]:
        if config.lora:
            trained.score.to(trained.dtype)  # as it will be loaded
        settings, margins = _settings(config, trained, train, texts_only), margins_of(trained, held_out)
        summary = _summary(margins, held_out, settings, config.group_by, left_out)
        fill(staging, trained, tokenizer, settings, reward_card(config, read_jsonl(folder / METRICS_FILE), summary))
        return margins, summary

    trained = _train(config, folder, model, tokenizer, train, held_out, write).eval()
    if ranks.is_first:
        with staged(folder / MODEL_FOLDER) as staging:
            margins, summary = write(trained, staging)
            plot_calibration(margins, folder / "calibration.png")
            plot_margins([margin / summary["normalization"]["std"] for margin in margins], folder / "margins.png")
            write_atomically(folder / SUMMARY_FILE, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")


def _settings(
    config: RewardModelConfig, trained: "PreTrainedModel", train: list[TokenizedPair], texts_only: bool
) -> Settings:
    """How prompts are put to this model, and what its scores are normalized by."""
    reference = random.Random(config.seed).sample(train, min(len(train), REFERENCE_PAIRS))
    raw = score_ids(trained, [ids for pair in reference for ids in (pair.chosen_ids, pair.rejected_ids)], 32)
    return Settings(
        mean=statistics.fmean(raw),
        std=statistics.pstdev(raw) or 1.0,
        reference=REFERENCE,
        system_prompt=config.data.system_prompt,
        as_chat=config.data.as_chat,
        chat_template_kwargs=config.data.chat_template_kwargs,
        texts_only=texts_only and not Rendering.of(config.data).makes_conversations,
    )


def _summary(
    margins: list[float], held_out: list[TokenizedPair], settings: Settings, group_by: str | None, left_out: int
) -> dict[str, Any]:
    """What summary.json says."""
    return {
        "held_out_pairs": len(held_out),
        "held_out_left_out": left_out,
        **measure(margins),
        "accuracy_by": accuracies(margins, held_out, group_by),
        "normalization": {"mean": settings.mean, "std": settings.std, "reference": settings.reference},
    }


def margins_of(model: "PreTrainedModel", pairs: list[TokenizedPair]) -> list[float]:
    """Raw score of the chosen side minus that of the rejected one, for each pair."""
    chosen = score_ids(model, [pair.chosen_ids for pair in pairs], 32)
    rejected = score_ids(model, [pair.rejected_ids for pair in pairs], 32)
    return [better - worse for better, worse in zip(chosen, rejected, strict=True)]


def margin_means(model: "PreTrainedModel", pairs: list[TokenizedPair], ranks: Ranks) -> Means:
    """`accuracy`, `loss` and `margin` over the pairs of all ranks, of which `pairs` are those of this one."""
    was_training = model.training
    model.eval()
    try:
        shares = ranks.exchange(lambda: margins_of(model, pairs))
    finally:
        model.train(was_training)
    means = measure([margin for share in shares for margin in share])
    return {"accuracy": means["accuracy"], "loss": means["log_loss"], "margin": means["margin"]}


def fill(
    folder: Path, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast", settings: Settings, card: str
) -> None:
    """Write model, tokenizer, settings and model card into a folder."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / SETTINGS_FILE).write_text(json.dumps(settings._asdict(), indent=2) + "\n", encoding="utf-8")
    (folder / CARD_FILE).write_text(card, encoding="utf-8")


def _build(config: RewardModelConfig) -> "tuple[PreTrainedModel, PreTrainedTokenizerFast]":
    """The language model with a new scalar head instead of its LM head, dropout off."""
    import torch
    from transformers import AutoModelForSequenceClassification

    tokenizer = load_tokenizer(str(config.model.name_or_path), config.model.trust_remote_code, config.model.gguf_file)
    model = load_pretrained(
        AutoModelForSequenceClassification,
        str(config.model.name_or_path),
        config.model.trust_remote_code,
        config.model.gguf_file,
        new_head=True,
        num_labels=1,
        dtype=getattr(torch, dtype_of_weights(config)),
        use_safetensors=True,
    )
    # The score is read at the last token that is not padding, so the model has to know which one that is.
    model.config.pad_token_id = tokenizer.pad_token_id
    disable_dropout(model)
    return model.to(default_device()), tokenizer


def _train(
    config: RewardModelConfig,
    folder: Path,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerFast",
    pairs: list[TokenizedPair],
    measured: list[TokenizedPair],
    write: Callable[["PreTrainedModel", Path], object],
) -> "PreTrainedModel":
    """Run TRL's trainer; returns the model, adapters merged in. The best one by `measured` pairs is written, too."""
    import trl

    lora = lora_adapters(config.lora, model, task_type="SEQ_CLS") if config.lora else None
    if lora:
        lora.modules_to_save = ["score"]  # the head is trained in full
        use_float32(model.score)
    arguments = trl.RewardConfig(**training_arguments(config, folder, model.device.type))
    trainer = trainer_class(trl.RewardTrainer, config)(
        model, args=arguments, train_dataset=_dataset(pairs), processing_class=tokenizer, peft_config=lora
    )
    require_no_noise(trainer.model)
    ranks = Ranks.of(trainer.accelerator)
    mine = measured[: config.evaluation.rows if config.evaluation else 0]
    mine = mine[ranks.share(len(mine))]
    held_out = HeldOut(
        config.evaluation,
        "step",
        ranks,
        lambda: margin_means(trainer.model, mine, ranks),
        lambda staging: write(merged_copy(trainer.model), staging),
        folder / BEST_FOLDER,
    )
    run_trainer(trainer, "reward", folder, config, METRICS, held_out)
    return merge(trainer.model) if lora else trainer.model


def use_float32(head: "nn.Module") -> None:
    """Have a layer, and the copy that PEFT trains, be in float32 and read features in its own type.

    In bfloat16 steps below 1/512 of a weight would be lost.
    """
    head.float().register_forward_pre_hook(_in_own_type)


def _in_own_type(head: "nn.Module", inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(features.to(next(head.parameters()).dtype) for features in inputs)


def _dataset(pairs: list[TokenizedPair]) -> Any:
    """Token ids as RewardTrainer takes them."""
    import datasets

    datasets.disable_progress_bars()
    return datasets.Dataset.from_list(
        [{"chosen_ids": pair.chosen_ids, "rejected_ids": pair.rejected_ids} for pair in pairs]
    )
