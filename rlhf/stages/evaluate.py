"""Evaluation: sample on held-out prompts with a fixed seed, and measure."""

import json
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlhf.config import EvaluateConfig, LoraConfig, ModelConfig, SamplingConfig
from rlhf.config.checks import require
from rlhf.data.examples import TokenizedExample, check_fits, load_held_out, load_training, tokenize
from rlhf.data.prompts import in_batches
from rlhf.environments.episodes import Episodes, episodes_of, on_its_own, respond, seeded
from rlhf.environments.returns import reward_fn
from rlhf.errors import UserError
from rlhf.maths.tensors import masked_mean
from rlhf.models.load import load_causal_lm
from rlhf.models.locate import model_in
from rlhf.models.quantization import is_quantized
from rlhf.models.shape import context_length
from rlhf.models.tokenizer import load_tokenizer
from rlhf.policy.files import is_policy_folder, is_trained_in_full, load_policy
from rlhf.policy.policy import Policy
from rlhf.ppo.rollout import policy_outputs
from rlhf.report.load import read_run
from rlhf.report.tables import print_table
from rlhf.rewards import RewardSum, Scores, reward_inputs
from rlhf.rewards.explanation import explanation
from rlhf.rewards.inputs import columns_of
from rlhf.runs.files import write_atomically
from rlhf.runs.folder import is_done, mark_done, open_run
from rlhf.runs.locking import alone_in_its_folder
from rlhf.sampling.responses import Responses, continued
from rlhf.stages.frame import print_places, say_finished
from rlhf.tracking.progress import ProgressBar

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


TEXTS = ("prompt", "response", "explanation", "extra")
EPISODES = 100
"""Of an environment without data, where the config does not say how many."""
NUMBERS = ("reward", "length", "kl", "entropy", "eos_rate")


@dataclass(frozen=True)
class Measurement:
    """Means over all responses, and the responses with their rewards and what these say of themselves, a row each.

    `means` holds `reward` (the weighted sum), every component under its own name (`reward/NAME` where that is taken),
    `reward_metric/NAME` for what rewards log as a metric,
    `length` (tokens, EOS included), `kl` (nats per response against the reference, 0 for a model without adapters) and
    `entropy` (nats per token), both at the temperature of the sampling (1 for greedy decoding), and `eos_rate`.
    """

    means: dict[str, float]
    rows: list[dict[str, Any]]


@alone_in_its_folder
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
    print_table(["held-out mean", config.output_dir], [[name, f"{x:.3f}"] for name, x in measurement.means.items()])
    print_places(Path(config.output_dir), {"means": "evaluation.json", "responses": "responses.jsonl"})


def read_measurement(folder: Path) -> Measurement:
    """What an earlier evaluation wrote; raises UserError where that is damaged."""
    evaluations = read_run(folder).evaluations
    if "model" not in evaluations:
        raise UserError(f"{folder} is finished, but its evaluation.json is gone; remove that folder to evaluate again")
    return Measurement(evaluations["model"].means, evaluations["model"].rows)


def policy_of(model: ModelConfig, with_reference: bool = True) -> "tuple[Policy, PreTrainedTokenizerFast]":
    """A trained policy, or any causal language model as a policy whose adapters do nothing yet.

    Without reference one that was trained in full is such a model.
    """
    assert model.name_or_path is not None
    name = model_in(model.name_or_path)
    if is_policy_folder(name) and (with_reference or not is_trained_in_full(Path(name))):
        policy = load_policy(Path(name), model.trust_remote_code, model.dtype)
        require(
            model.quantization is None or is_quantized(policy.language_model),
            f"model.quantization is {model.quantization}, but {name} was trained without it; remove it",
        )
        return policy, load_tokenizer(policy.base_name, model.trust_remote_code, policy.base_gguf_file)
    tokenizer = load_tokenizer(name, model.trust_remote_code, model.gguf_file)
    return Policy.with_lora(load_causal_lm(model), LoraConfig(r=1), critic="detached"), tokenizer


def measure(
    policy: Policy,
    tokenizer: "PreTrainedTokenizerFast",
    prompts: list[TokenizedExample],
    rewards: RewardSum,
    sampling: SamplingConfig,
    *,
    num_generations: int,
    batch_size: int,
    seed: int,
    episodes: Episodes | None = None,
) -> Measurement:
    """Sample `num_generations` responses, or episodes, per prompt and average what rewards and model say of them."""
    check_fits(prompts, sampling.max_new_tokens, context_length(policy.language_model))
    generator = torch.Generator(device=policy.device).manual_seed(seed)
    sampler = partial(continued, policy, tokenizer, sampling, generator)
    begun = prompts if episodes is None else seeded(prompts, f"evaluation {seed}")
    repeated = [prompt for prompt in begun for _ in range(num_generations)]
    batches = in_batches(repeated, batch_size)
    rows: list[dict[str, Any]] = []
    scores: list[Scores] = []
    with ProgressBar("evaluate", len(batches)) as bar:
        for batch in batches:
            responses = respond(batch, sampler, tokenizer, episodes)
            scores.append(score_responses(rewards, responses))
            rows += _rows(policy, responses, rewards, scores[-1], batch_size, sampling.temperature or 1.0)
            bar.advance()
    names = [name for name in rows[0] if name not in TEXTS]
    columns = {name: [row[name] for row in rows if row[name] is not None] for name in names}
    means = {name: sum(column) / max(1, len(column)) for name, column in columns.items()}
    return Measurement(means | Scores.concatenate(scores).logged.metric_means(), rows)


def score_responses(rewards: RewardSum, responses: Responses) -> Scores:
    """The scores of each reward, given as in training."""
    inputs = reward_inputs(responses.examples, responses.texts, responses.episodes)
    return rewards(*inputs, completion_ids=responses.all_response_ids())


def _rows(
    policy: Policy,
    responses: Responses,
    rewards: RewardSum,
    scores: Scores,
    batch_size: int,
    temperature: float,
) -> list[dict[str, Any]]:
    """Everything measured about each response; KL and entropy of the distributions at this temperature.

    It has to be that of the sampling: the mean over samples of log p - log q estimates a KL of p only if p drew them.
    """
    now = policy_outputs(policy, responses, temperature, batch_size, with_values=False, with_entropy=True)
    with policy.reference():
        reference = policy_outputs(policy, responses, temperature, batch_size, with_values=False, with_entropy=False)
    examples, texts = responses.examples, responses.texts
    prompts, completions, _ = reward_inputs(examples, texts, responses.episodes)
    kl = (now.logprobs - reference.logprobs).sum(-1).tolist()
    entropy = masked_mean(now.entropy, responses.response_mask, dim=-1).tolist()
    return [
        {
            "prompt": examples[row].prompt,
            "response": texts[row],
            "explanation": explanation(
                rewards.rewards,
                scores,
                row,
                prompts[row],
                completions[row],
                columns_of(responses, row),
            ),
            **({"extra": scores.extra(row)} if scores.logged.extra else {}),
            "reward": scores.total[row] + scores.span_total[row],
            **{column_of(name): component[row] for name, component in scores.components.items()},
            "length": int(responses.lengths[row]),
            "kl": kl[row],
            "entropy": entropy[row],
            "eos_rate": float(responses.has_eos[row]),
        }
        for row in range(len(responses))
    ]


def column_of(reward: str) -> str:
    """Where a reward stands in a row: under its own name, unless that is the name of something else there."""
    return f"reward/{reward}" if reward in (*TEXTS, *NUMBERS) else reward
