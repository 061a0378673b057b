"""How fast are SFT and the reward model? Their fast paths against the plain libraries (`fast_paths: false`).

    python benchmarks/bench_fine_tuning.py [--shape smollm2|gpt2] [--stage sft|reward] [--dtype fp32|bf16]
        [--rows 16] [--micro_batch 16] [--longest 200] [--even] [--repeats 3] [--layers N] [--model FOLDER]

Random weights in the shape of SmolLM2-135M with LoRA, or of GPT-2 small trained in full; --model takes the weights in
a folder instead. Lengths scatter as answers do, up to the longest; --even makes them all equal, so that there is no
padding to save. A row is half prompt, half completion. One thread; each side is a process of its own, one optimizer
step of each in turn, the first of each not counted. Tokens are those of the rows, without padding, and the seconds
processor seconds; the memory is the process's largest. The last line is JSON.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import torch
from ppo_bench.conclude import MIB
from ppo_bench.laps import peak_memory
from ppo_bench.model import random_model, word_tokenizer
from ppo_bench.settings import DTYPES, TINY, Setting
from ppo_bench.turns import elsewhere, started, take_turns

from rlhf.cli import quiet_libraries
from rlhf.config import DataConfig, LoraConfig, ModelConfig, RewardModelConfig, SFTConfig, TrackingConfig
from rlhf.models.load import load_causal_lm
from rlhf.report.tables import markdown_table

SHAPES = {
    "smollm2": replace(
        TINY, architecture="llama", hidden=576, layers=30, heads=9, kv_heads=3, feed_forward=1536, vocabulary=49152
    ),
    "gpt2": replace(TINY, architecture="gpt2", hidden=768, layers=12, heads=12, kv_heads=12, vocabulary=50257),
}
ROWS_FILE, STEPS = "rows.jsonl", 50
MEDIAN_SHARE, SCATTER = 0.45, 0.5
"""Lengths: a log-normal distribution with its median at this share of the longest, cut off there."""
SIDES = {"fast": True, "plain": False}


def main() -> None:
    arguments = parser().parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory(prefix="bench_fine_tuning_") as folder:
        elsewhere(write_workload, arguments, Path(folder))
        workers = [started(side, work, arguments, Path(folder), side) for side in SIDES]
        fast, plain = take_turns(workers, arguments.repeats)
    result = {side: summary(steps) for side, steps in (("fast", fast), ("plain", plain))}
    ratio = median(a[0] / a[1] * b[1] / b[0] for a, b in zip(fast, plain, strict=True))
    table = [[side, f"{now['tokens_per_second']:.0f}", f"{now['peak_mib']:.0f}"] for side, now in result.items()]
    print(markdown_table(["side", "tokens per CPU second", "peak MiB"], table))
    given = {name: str(value) for name, value in vars(arguments).items()}
    print(json.dumps(given | result | {"ratio": round(ratio, 3)}))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=tuple(SHAPES), default="smollm2")
    parser.add_argument("--model", type=Path, help="a folder with a model")
    parser.add_argument("--layers", type=int, help="fewer than the shape has, for a first look")
    parser.add_argument("--stage", choices=("sft", "reward"), default="sft")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--rows", type=int, default=16, help="per optimizer step; pairs of them for a reward model")
    parser.add_argument("--micro_batch", type=int)
    parser.add_argument("--longest", type=int, default=200, help="tokens of a row")
    parser.add_argument("--even", action="store_true", help="all rows as long as the longest")
    parser.add_argument("--repeats", type=int, default=3)
    return parser


def write_workload(arguments: argparse.Namespace, folder: Path) -> None:
    """A model with random weights, and rows of random words, each a token."""
    shape: Setting = SHAPES[arguments.shape]
    shape = replace(shape, layers=arguments.layers or shape.layers, prompt_tokens=arguments.longest, response_tokens=8)
    quiet_libraries()
    torch.manual_seed(0)
    given = arguments.model and load_causal_lm(ModelConfig(name_or_path=str(arguments.model)))
    model = (given or random_model(shape)).to(getattr(torch, DTYPES[arguments.dtype]))
    model.save_pretrained(folder)
    word_tokenizer(model.config.vocab_size).save_pretrained(folder)
    generator = random.Random(0)

    def words(number: int) -> str:
        return " ".join(f"w{generator.randrange(1, shape.vocabulary)}" for _ in range(number))

    with (folder / ROWS_FILE).open("w") as file:
        for _ in range(STEPS * arguments.rows):
            half = (arguments.longest if arguments.even else length(generator, arguments.longest)) // 2
            row = {"prompt": words(half), "completion": words(half - 1)}  # and EOS
            row |= {"chosen": row["completion"], "rejected": words(half - 1)}
            file.write(json.dumps(row) + "\n")


def length(generator: random.Random, longest: int) -> int:
    """Tokens of a row."""
    return max(8, min(longest, round(MEDIAN_SHARE * longest * generator.lognormvariate(0, SCATTER))))


def work(arguments: argparse.Namespace, folder: Path, side: str, connection: Connection) -> None:
    """Main function of a process: the stage, which reports each optimizer step and waits until it is asked for more."""
    from transformers import TrainerCallback

    from rlhf.stages import hf_trainer, reward_model, sft

    quiet_libraries()
    torch.set_num_threads(1)
    stage: Any
    run: Any
    stage, run = {"sft": (sft, sft.run_sft), "reward": (reward_model, reward_model.run_reward)}[arguments.stage]

    class Clock(TrainerCallback):
        def __init__(self, trainer: Any) -> None:
            self.trainer, self.tokens = trainer, 0

        def on_step_begin(self, *given: Any, **others: Any) -> None:
            self.started = time.process_time()

        def on_step_end(self, *given: Any, **others: Any) -> None:
            seconds = time.process_time() - self.started
            tokens, self.tokens = self.trainer._total_train_tokens - self.tokens, self.trainer._total_train_tokens
            connection.send((tokens, seconds, peak_memory() / MIB))
            if not connection.recv():
                os._exit(0)

    def clocked(trainer: Any, *given: Any) -> None:
        trainer.add_callback(Clock(trainer))
        hf_trainer.run_trainer(trainer, *given)

    stage.run_trainer = clocked
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    run(config_of(arguments, folder, side))


def config_of(arguments: argparse.Namespace, folder: Path, side: str) -> Any:
    """The stage's settings."""
    rows = str(folder / ROWS_FILE)
    kind = SFTConfig if arguments.stage == "sft" else RewardModelConfig
    return kind(
        output_dir=str(folder / side),
        model=ModelConfig(name_or_path=str(folder), dtype=DTYPES[arguments.dtype]),  # type: ignore
        data=DataConfig(train=rows, eval=None if arguments.stage == "sft" else rows),
        lora=LoraConfig() if arguments.shape == "smollm2" else None,
        batch_size=arguments.rows,
        micro_batch_size=arguments.micro_batch,
        tracking=TrackingConfig(wandb="disabled", tensorboard=False),
        fast_paths=SIDES[side],
    )


def summary(steps: list[tuple[int, float, float]]) -> dict[str, float]:
    """Medians of the steps of a side."""
    speed = median(tokens / seconds for tokens, seconds, _ in steps)
    return {"tokens_per_second": round(speed, 1), "peak_mib": round(max(peak for *_, peak in steps))}


if __name__ == "__main__":
    main()
