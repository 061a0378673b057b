"""Evaluation: sample on held-out prompts with a fixed seed, and measure."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.config import EvaluateConfig, LoraConfig, ModelConfig
from rlhf.config.checks import require
from rlhf.data.examples import TokenizedExample, load_held_out, load_training, tokenize
from rlhf.environments.episodes import episodes_of, on_its_own
from rlhf.environments.returns import reward_fn
from rlhf.errors import UserError
from rlhf.evaluation.measure import GREEDY, Measurement, measure
from rlhf.models.load import load_causal_lm
from rlhf.models.locate import model_in
from rlhf.models.precision import chooses_dtype
from rlhf.models.quantization import is_quantized
from rlhf.models.shape import context_length
from rlhf.models.tokenizer import load_tokenizer
from rlhf.policy.files import is_trained_in_full, load_policy, policy_folder
from rlhf.policy.policy import Policy
from rlhf.report.load import read_run
from rlhf.report.tables import print_table
from rlhf.runs.files import write_atomically
from rlhf.runs.folder import is_done, mark_done, open_run
from rlhf.runs.locking import alone_in_its_folder
from rlhf.stages.frame import print_places, say_finished

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


EPISODES = 100
"""Of an environment without data, where the config does not say how many."""


@alone_in_its_folder
@chooses_dtype
def run_evaluate(config: EvaluateConfig) -> Measurement:
    """The `evaluate` stage: writes evaluation.json and responses.jsonl into output_dir.

    A finished evaluation with the same config is read back instead of repeated.
    """
    rewards = reward_fn(config.rewards, config.environment)
    folder = open_run(config.output_dir, config)
    if is_done(folder):
        say_finished(folder)
        return read_measurement(folder)
    started = time.monotonic()
    policy, tokenizer = policy_of(config.model)
    prompts = held_out_prompts(config, tokenizer, context_length(policy.language_model))
    measurement = measure(
        policy,
        tokenizer,
        prompts,
        rewards,
        config.sampling,
        num_generations=config.num_generations,
        batch_size=config.batch_size,
        seed=config.seed,
        passing=config.pass_at_k,
        greedy=config.greedy,
        episodes=episodes_of(config, policy.language_model, tokenizer),
    )
    write_atomically(folder / "evaluation.json", json.dumps(measurement.means, indent=2) + "\n")
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in measurement.rows]
    write_atomically(folder / "responses.jsonl", "".join(lines))
    mark_done(folder, time.monotonic() - started)
    return measurement


def held_out_prompts(
    config: EvaluateConfig, tokenizer: "PreTrainedTokenizerFast", context: int
) -> list[TokenizedExample]:
    """The prompts to measure on; an environment without data begins so many episodes on its own."""
    data, environment = config.data, config.environment
    if environment is not None:
        if data.eval is None and data.train is None:
            return [on_its_own(environment)] * (config.prompts or EPISODES)
        data = replace(data, as_chat=True)
    examples = load_held_out(data) or load_training(data)
    return tokenize(examples, tokenizer, data, context, config.sampling.max_new_tokens)[: config.prompts]


def main(config: EvaluateConfig) -> None:
    """`rlhf evaluate`: run the stage and print its means."""
    measurement = run_evaluate(config)
    print_means(measurement.means, config.output_dir)
    print_places(Path(config.output_dir), {"means": "evaluation.json", "responses": "responses.jsonl"})


def print_means(means: dict[str, float], output_dir: str) -> None:
    """A row per quantity; greedy decoding in a column of its own, where it was asked for."""
    sampled = {name: x for name, x in means.items() if not name.startswith(GREEDY)}
    if len(sampled) == len(means):
        print_table(["held-out mean", output_dir], [[name, f"{x:.3f}"] for name, x in means.items()])
        return
    rows = [
        [name, f"{x:.3f}", f"{means[key]:.3f}" if (key := GREEDY + name) in means else ""]
        for name, x in sampled.items()
    ]
    print_table(["held-out mean", "sampled", "greedy"], rows, title=output_dir)


def read_measurement(folder: Path) -> Measurement:
    """What an earlier evaluation wrote; raises UserError where that is damaged."""
    evaluations = read_run(folder).evaluations
    if "model" not in evaluations:
        raise UserError(f"{folder} is finished, but its evaluation.json is gone; remove that folder to evaluate again")
    return Measurement(evaluations["model"].means, evaluations["model"].rows)


def policy_of(model: ModelConfig, with_reference: bool = True) -> "tuple[Policy, PreTrainedTokenizerFast]":
    """A trained policy, or any causal language model as a policy whose adapters do nothing yet; and its tokenizer.

    Without reference one that was trained in full is such a model. The tokenizer is the one saved with the policy, else
    the base's.
    """
    assert model.name_or_path is not None
    name = model_in(model.name_or_path)
    folder = policy_folder(name)
    if folder is not None and (with_reference or not is_trained_in_full(folder)):
        policy = load_policy(folder, model.trust_remote_code, model.dtype)
        require(
            model.quantization is None or is_quantized(policy.language_model),
            f"model.quantization is {model.quantization}, but {name} was trained without it; remove it",
        )
        if (folder.expanduser() / "tokenizer_config.json").is_file():
            return policy, load_tokenizer(str(folder), model.trust_remote_code)
        return policy, load_tokenizer(policy.base_name, model.trust_remote_code, policy.base_gguf_file)
    tokenizer = load_tokenizer(name, model.trust_remote_code, model.gguf_file)
    return Policy.with_lora(load_causal_lm(model), LoraConfig(r=1), critic="detached"), tokenizer
