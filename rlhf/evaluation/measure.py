"""Sampling on held-out prompts with a fixed seed, and what rewards and model say of the responses."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from rlhf.config import SamplingConfig
from rlhf.config.evaluation import PassConfig
from rlhf.data.examples import TokenizedExample, check_fits
from rlhf.data.prompts import in_batches
from rlhf.environments.episodes import Episodes, respond, seeded
from rlhf.evaluation.pass_at_k import pass_rates
from rlhf.maths.tensors import masked_mean
from rlhf.models.shape import context_length
from rlhf.policy.policy import Policy
from rlhf.ppo.rollout import policy_outputs
from rlhf.rewards import RewardSum, Scores, reward_inputs
from rlhf.rewards.explanation import explanation
from rlhf.rewards.inputs import columns_of
from rlhf.sampling.responses import Responses, continued
from rlhf.sampling.turn_cache import TurnCache
from rlhf.tracking.progress import ProgressBar

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEXTS = ("prompt", "response", "explanation", "extra")
NUMBERS = ("reward", "length", "kl", "entropy", "eos_rate")
GREEDY = "greedy/"
Numbers = dict[str, float | None]


@dataclass(frozen=True)
class Measurement:
    """Means over all responses, and the responses with their rewards and the reasons for these, a row each.

    `means` holds `reward` (the weighted sum), every component under its own name (`reward/NAME` where that is taken)
    that applies to any response, `reward_metric/NAME` for what rewards log as a metric,
    `length` (tokens, EOS included), `kl` (nats per response against the reference, 0 for a model without adapters) and
    `entropy` (nats per token), both at the temperature of the sampling (1 for greedy decoding), `eos_rate`, and where
    they are asked for `pass@K`, and `greedy/NAME` of one greedy response per prompt.
    """

    means: dict[str, float]
    rows: list[dict[str, Any]]


class Batch(NamedTuple):
    """Sampled responses, what they earned, and all that is averaged, a row per response."""

    responses: Responses
    scores: Scores
    numbers: list[Numbers]


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
    passing: PassConfig | None = None,
    greedy: bool = False,
    episodes: Episodes | None = None,
) -> Measurement:
    """Sample `num_generations` responses, or episodes, per prompt and average what rewards and model measure."""
    check_fits(prompts, sampling.max_new_tokens, context_length(policy.language_model))
    if episodes is not None:
        prompts = seeded(prompts, f"evaluation {seed}")

    def batches(sampling: SamplingConfig, num_generations: int) -> Iterator[Batch]:
        repeated = repeat(prompts, num_generations)
        with ProgressBar("evaluate", len(in_batches(repeated, batch_size))) as bar:
            for batch in sample(policy, tokenizer, repeated, rewards, sampling, batch_size, batch_size, seed, episodes):
                yield batch
                bar.advance()

    numbers: list[Numbers] = []
    rows: list[dict[str, Any]] = []
    scores: list[Scores] = []
    for batch in batches(sampling, num_generations):
        numbers += batch.numbers
        rows += _described(batch, rewards)
        scores.append(batch.scores)
    means = means_of(numbers, scores, num_generations, passing)
    if greedy:
        decoded = list(batches(greedily(sampling), 1))
        means |= greedy_means([row for batch in decoded for row in batch.numbers], [batch.scores for batch in decoded])
    return Measurement(means, rows)


def repeat(prompts: list[TokenizedExample], num_generations: int) -> list[TokenizedExample]:
    """Each prompt that many times in a row."""
    return [prompt for prompt in prompts for _ in range(num_generations)]


def greedily(sampling: SamplingConfig) -> SamplingConfig:
    """The same with greedy decoding."""
    return replace(sampling, temperature=0.0, top_p=1.0)


def sample(
    policy: Policy,
    tokenizer: "PreTrainedTokenizerFast",
    prompts: list[TokenizedExample],
    rewards: RewardSum,
    sampling: SamplingConfig,
    batch_size: int,
    micro_batch_size: int,
    seed: int,
    episodes: Episodes | None = None,
) -> Iterator[Batch]:
    """A response, or an episode, to each prompt: `batch_size` sampled at once, scored, `micro_batch_size` read at once.

    The random numbers are those of the seed alone.
    """
    generator = torch.Generator(device=policy.device).manual_seed(seed)
    for some in in_batches(prompts, batch_size) if prompts else []:
        turns = None if episodes is None else TurnCache()
        sampler = partial(continued, policy, tokenizer, sampling, generator, turns=turns)
        responses = respond(some, sampler, tokenizer, episodes)
        scores = score_responses(rewards, responses)
        yield Batch(responses, scores, _numbers(policy, responses, scores, micro_batch_size, sampling.temperature or 1))


def score_responses(rewards: RewardSum, responses: Responses) -> Scores:
    """The scores of each reward, given as at the end of a training."""
    inputs = reward_inputs(responses.examples, responses.texts, responses.episodes)
    return rewards(*inputs, completion_ids=responses.all_response_ids())


def means_of(
    numbers: Sequence[Numbers], scores: Sequence[Scores], num_generations: int, passing: PassConfig | None
) -> dict[str, float]:
    """The means of a `Measurement`; a column without any value has none."""
    columns = {name: [value for row in numbers if (value := row[name]) is not None] for name in numbers[0]}
    together = Scores.concatenate(scores)
    means = {name: fmean(column) for name, column in columns.items() if column} | together.logged.metric_means()
    if passing is not None:
        decides = passing.reward or next(iter(together.components))
        means |= pass_rates(together.components[decides], num_generations, passing)
    return means


def greedy_means(numbers: Sequence[Numbers], scores: Sequence[Scores]) -> dict[str, float]:
    """The means as `greedy/NAME`, but for those of what only a sample can estimate."""
    means = means_of(numbers, scores, 1, None)
    return {f"{GREEDY}{name}": value for name, value in means.items() if name not in ("kl", "entropy")}


def column_of(reward: str) -> str:
    """Where a reward stands in a row: under its own name, unless that is the name of something else there."""
    return f"reward/{reward}" if reward in (*TEXTS, *NUMBERS) else reward


def _numbers(policy: Policy, responses: Responses, scores: Scores, n_rows: int, temperature: float) -> list[Numbers]:
    """Everything measured about each response; KL and entropy of the distributions at this temperature.

    It has to be that of the sampling: the mean over samples of log p - log q estimates a KL of p only if p drew them.
    """
    outputs = partial(policy_outputs, policy, responses, temperature, n_rows, with_values=False)
    if _is_reference(policy):
        with policy.reference():
            now = reference = outputs(with_entropy=True)
    else:
        now = outputs(with_entropy=True)
        with policy.reference():
            reference = outputs(with_entropy=False)
    kl = (now.logprobs - reference.logprobs).sum(-1).tolist()
    entropy = masked_mean(now.entropy, responses.response_mask, dim=-1).tolist()
    return [
        {
            "reward": scores.total[row] + scores.span_total[row],
            **{column_of(name): component[row] for name, component in scores.components.items()},
            "length": int(responses.lengths[row]),
            "kl": kl[row],
            "entropy": entropy[row],
            "eos_rate": float(responses.has_eos[row]),
        }
        for row in range(len(responses))
    ]


def _is_reference(policy: Policy) -> bool:
    """Whether the policy's adapters do nothing: all but their first factors are 0, as no step has changed them."""
    named = policy.language_model.named_parameters()
    own = {name: parameter for name, parameter in named if f".{policy.adapter}." in f"{name}."}
    others = [parameter for name, parameter in own.items() if ".lora_A." not in name]
    return policy.frozen_reference is None and bool(own) and not any(bool(x.any()) for x in others)


def _described(batch: Batch, rewards: RewardSum) -> list[dict[str, Any]]:
    """The responses as texts, with what the rewards say of each, before the numbers."""
    responses, scores, numbers = batch
    examples, texts = responses.examples, responses.texts
    prompts, completions, _ = reward_inputs(examples, texts, responses.episodes)
    return [
        {
            "prompt": examples[row].prompt,
            "response": texts[row],
            "explanation": explanation(
                rewards.rewards, scores, row, prompts[row], completions[row], columns_of(responses, row)
            ),
            **({"extra": scores.extra(row)} if scores.logged.extra else {}),
            **numbers[row],
        }
        for row in range(len(responses))
    ]
