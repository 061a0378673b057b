"""IFEval of one or several models, by the project's own 25 checks.

    python benchmarks/ifeval.py MODEL [MODEL ...] [--data ifeval.jsonl] [--max_new_tokens 512] [--output runs/ifeval]
    python benchmarks/ifeval.py MODEL --url http://localhost:8000     what a server answers, such as `vllm serve MODEL`

A model is whatever `rlhf evaluate` takes: a hub name, a folder, a run; or the name that the server has for its own.
Responses are greedy. `--data` is a file of the benchmark's prompts (default: google/IFEval from the hub). The responses
stay under `--output`: a folder for each model, which is not sampled again, or a server's in a file. Prints the strict
and loose accuracies, mean length in tokens and the share of responses that ended, model by model; KL without a server.
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any

import httpx

from rlhf.config import DataConfig, EvaluateConfig, ModelConfig, SamplingConfig
from rlhf.data.examples import load_held_out
from rlhf.data.sources import is_on_hub
from rlhf.report.tables import print_table
from rlhf.rewards import RewardSpec
from rlhf.rewards.ifeval import measure_accuracy
from rlhf.rewards.ifeval.accuracy import COLUMNS, accuracy_table
from rlhf.runs.files import write_atomically
from rlhf.stages.evaluate import run_evaluate

BESIDE = ("length", "kl", "eos_rate", "repetition")
AT_ONCE = 64
"""Requests that a server has at a time."""
PATIENCE_S = 3600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--data", default="google/IFEval")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--max_new_tokens", type=int, default=512)
    parser.add_argument("--output", type=Path, default=Path("runs/ifeval"))
    parser.add_argument("--url", help="of a server with an OpenAI interface that serves the model")
    options = parser.parse_args()
    for model in options.models:
        config = evaluation(options, model)
        examples = load_held_out(config.data)
        if options.url:
            responses, means = ask(options, model, [example.prompt for example in examples])
        else:
            measurement = run_evaluate(config)
            responses, means = [row["response"] for row in measurement.rows], measurement.means
        rows = [{**e.columns, "response": response} for e, response in zip(examples, responses, strict=True)]
        beside = [[name, f"{means[name]:.3f}", ""] for name in BESIDE if name in means]
        print_table([model, *COLUMNS[1:]], [*accuracy_table(measure_accuracy(rows)), *beside])


def ask(options: argparse.Namespace, model: str, prompts: list[str]) -> tuple[list[str], dict[str, float]]:
    """The greedy responses of a server, and means of what it says of them."""

    def answer(prompt: str) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt}]
        asked = {"model": model, "messages": messages, "temperature": 0, "max_tokens": options.max_new_tokens}
        said = httpx.post(f"{options.url}/v1/chat/completions", json=asked, timeout=PATIENCE_S)
        return said.raise_for_status().json()

    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(answer, prompts))
    choices = [answer["choices"][0] for answer in answers]
    responses = [choice["message"]["content"] for choice in choices]
    lines = [json.dumps({"prompt": p, "response": r}) + "\n" for p, r in zip(prompts, responses, strict=True)]
    options.output.mkdir(parents=True, exist_ok=True)
    write_atomically(Path(f"{folder_of(options, model)}.jsonl"), "".join(lines))
    means = {
        "length": fmean(answer["usage"]["completion_tokens"] for answer in answers),
        "eos_rate": fmean(choice["finish_reason"] == "stop" for choice in choices),
    }
    return responses, means


def folder_of(options: argparse.Namespace, model: str) -> Path:
    """Where the responses of a model stay."""
    output: Path = options.output
    return output / model.strip("/").replace("/", "-")


def evaluation(options: argparse.Namespace, model: str) -> EvaluateConfig:
    """Greedy responses to every prompt of the benchmark."""
    return EvaluateConfig(
        output_dir=str(folder_of(options, model)),
        model=ModelConfig(name_or_path=model, dtype=options.dtype),
        data=DataConfig(
            eval=options.data,
            eval_split="train" if is_on_hub(options.data) else DataConfig.eval_split,
            as_chat=True,
            max_prompt_tokens=2048,
        ),
        rewards=[RewardSpec(path="instructions"), RewardSpec(path="repetition", weight=0.0)],
        sampling=SamplingConfig(max_new_tokens=options.max_new_tokens, temperature=0.0),
        batch_size=32,
    )


if __name__ == "__main__":
    main()
