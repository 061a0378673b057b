"""What a batch is worth to more than one update: score per sampled response and per update, by `reuse_batch`.

    python benchmarks/batch_reuse.py [--seeds 0 1 2] [--uses 1 2 4 8] [--epochs 8 16] [--learning-rate 1e-2]

A random GPT-2 of two layers with adapters goes through the trainer of `rlhf ppo`, one thread, a minute and a half of
processor time. It is paid for the share of the letter e. Scores and the KL to the reference are those of fresh
responses of the policy after so many batches and updates; --epochs are runs without reuse that make more passes over
each batch instead. Every row is a JSON line, the table comes last.
"""

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import torch
import transformers

from rlhf.config import LoraConfig, ModelConfig, PPOConfig, SamplingConfig, ScratchModel
from rlhf.config.data import DataConfig
from rlhf.config.rewards import RewardSpec
from rlhf.environments.episodes import respond
from rlhf.maths.tensors import masked_mean
from rlhf.models.load import build_from_scratch
from rlhf.ppo.stopwatch import Stopwatch
from rlhf.ppo.trainer import PPOTrainer
from rlhf.report.tables import markdown_table
from rlhf.rewards import RewardSum
from rlhf.stages.ppo import build_trainer

PROMPTS = [f"Write about {word}." for word in ("trees", "rain", "a town", "the sea", "music", "bread", "night", "snow")]
EPOCHS, BATCH = 2, 16
N_BATCHES, N_UPDATES = 12, 48
"""Where two runs are compared: after as many sampled responses, and after as many updates."""
MEASURED = 128
SIZES: dict[str, Any] = {"hidden_size": 32, "layers": 2, "heads": 2, "context_length": 64, "vocab_size": 300}
COLUMNS = ["reuse_batch", "epochs", "updates", "sampled", "score", "KL", "entropy", "least weight", "most truncated"]


class Way(NamedTuple):
    """How a batch is used: by so many updates, each with so many epochs."""

    uses: int
    epochs: int


def share_of_e(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """What is paid for."""
    return [text.count("e") / max(1, len(text)) for text in completions]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--uses", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--epochs", type=int, nargs="*", default=[8, 16])
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    ways = [Way(n, EPOCHS) for n in arguments.uses] + [Way(1, epochs) for epochs in arguments.epochs]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        for seed, way in itertools.product(arguments.seeds, ways):
            for row in run(way, seed, arguments.learning_rate, folder):
                rows.append(row)
                print(json.dumps(row), flush=True)
    print(f"\n{table(rows)}")


def write_model(folder: Path) -> None:
    """The reference: random, with weights so large that it prefers some tokens to others."""
    torch.manual_seed(0)
    model, tokenizer = build_from_scratch(ScratchModel(architecture="gpt2", **SIZES), PROMPTS)
    for parameter in model.parameters():
        parameter.data.mul_(3.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def run(way: Way, seed: int, learning_rate: float, folder: str) -> Iterator[dict[str, Any]]:
    """What the policy has come to after N_BATCHES batches and, unless it makes more epochs, after N_UPDATES updates."""
    last = max(N_BATCHES * way.uses, N_UPDATES if way.epochs == EPOCHS else 0)
    config = PPOConfig(
        model=ModelConfig(name_or_path=folder),
        data=DataConfig(),
        rewards=[RewardSpec(path=f"{__name__}.share_of_e")],
        lora=LoraConfig(r=4, alpha=8),
        sampling=SamplingConfig(max_new_tokens=10),
        num_updates=last,
        batch_size=BATCH,
        mini_batch_size=8,
        num_ppo_epochs=way.epochs,
        reuse_batch=way.uses,
        importance_correction="token",
        learning_rate=learning_rate,
        critic_learning_rate=learning_rate,
        lr_schedule="constant",
        kl_coef=0.01,
        seed=seed,
    )
    prompts = [{"prompt": text} for text in PROMPTS]
    trainer = build_trainer(config, RewardSum.from_specs(config.rewards), prompts=itertools.cycle(prompts))
    worst: dict[str, float] = {"sampling/weight_mean": 1.0, "sampling/truncated": 0.0, "sampling/kl": 0.0}
    for step in range(1, last + 1):
        metrics = trainer.update().metrics
        worst = {name: (min if name.endswith("mean") else max)(x, metrics[name]) for name, x in worst.items()}
        if step in (N_BATCHES * way.uses, last, N_UPDATES):
            about = {"uses": way.uses, "epochs": way.epochs, "seed": seed, "learning_rate": learning_rate}
            yield about | {"updates": step, "batches": -(-step // way.uses)} | measured(trainer) | worst


def measured(trainer: PPOTrainer) -> dict[str, float]:
    """Score and KL of fresh responses; no random number of the training is used up."""
    generator = torch.Generator().manual_seed(10_000)
    one_cycle = [next(trainer.prompts) for _ in PROMPTS]  # the training goes on as if nothing had been drawn
    prompts = one_cycle * (MEASURED // len(PROMPTS))
    responses = respond(prompts, trainer.sampler(generator), trainer.tokenizer)
    experience = trainer.evaluate(responses, Stopwatch())
    kl = (experience.old_logprobs - experience.ref_logprobs).sum(-1).mean()
    entropy = masked_mean(experience.entropy, experience.response_mask)
    return {"score": fmean(trainer.score(responses).total), "kl": float(kl), "entropy": float(entropy)}


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over the seeds, a line for each way and place."""
    lines = []
    for (uses, epochs, updates), group in grouped(rows).items():
        figures = [pm([row[name] for row in group]) for name in ("score", "kl", "entropy")]
        extremes = [f"{fmean([row[f'sampling/{name}'] for row in group]):.3f}" for name in ("weight_mean", "truncated")]
        place = [uses, epochs, updates, group[0]["batches"] * BATCH]
        lines.append([*map(str, place), *figures, *extremes])
    return markdown_table(COLUMNS, lines)


def grouped(rows: list[dict[str, Any]]) -> dict[tuple[int, int, int], list[dict[str, Any]]]:
    """The rows of all seeds by way and number of updates."""
    groups: dict[tuple[int, int, int], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["uses"], row["epochs"], row["updates"]), []).append(row)
    return groups


def pm(values: list[float]) -> str:
    """Mean ± standard deviation."""
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
