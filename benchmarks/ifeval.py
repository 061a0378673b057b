"""IFEval of one or several models, by the project's own 25 checks.

    python benchmarks/ifeval.py MODEL [MODEL ...] [--data ifeval.jsonl] [--max_new_tokens 512] [--output runs/ifeval]

A model is whatever `rlhf evaluate` takes: a hub name, a folder, a run. Responses are greedy. `--data` is a file of the
benchmark's prompts (default: google/IFEval from the hub). The responses stay under `--output`, a folder for each model;
what is there already is not sampled again. Prints the strict and loose accuracies, mean length, KL and the share of
responses that ended, model by model.
"""

import argparse
from pathlib import Path

from rlhf.config import DataConfig, EvaluateConfig, ModelConfig, SamplingConfig
from rlhf.data.examples import load_held_out
from rlhf.report.tables import print_table
from rlhf.rewards import RewardSpec
from rlhf.rewards.ifeval import measure_accuracy
from rlhf.rewards.ifeval.accuracy import COLUMNS, accuracy_table
from rlhf.stages.evaluate import run_evaluate

BESIDE = ("length", "kl", "eos_rate", "repetition")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--data", default="google/IFEval")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--max_new_tokens", type=int, default=512)
    parser.add_argument("--output", type=Path, default=Path("runs/ifeval"))
    options = parser.parse_args()
    for model in options.models:
        config = evaluation(options, model)
        measurement = run_evaluate(config)
        examples = load_held_out(config.data)
        rows = [{**e.columns, "response": row["response"]} for e, row in zip(examples, measurement.rows, strict=True)]
        beside = [[name, f"{measurement.means[name]:.3f}", ""] for name in BESIDE]
        print_table([model, *COLUMNS[1:]], [*accuracy_table(measure_accuracy(rows)), *beside])


def evaluation(options: argparse.Namespace, model: str) -> EvaluateConfig:
    """Greedy responses to every prompt of the benchmark."""
    return EvaluateConfig(
        output_dir=str(options.output / model.strip("/").replace("/", "-")),
        model=ModelConfig(name_or_path=model, dtype=options.dtype),
        data=DataConfig(eval=options.data, eval_split="train", as_chat=True, max_prompt_tokens=2048),
        rewards=[RewardSpec(path="instructions"), RewardSpec(path="repetition", weight=0.0)],
        sampling=SamplingConfig(max_new_tokens=options.max_new_tokens, temperature=0.0),
        batch_size=32,
    )


if __name__ == "__main__":
    main()
