"""The run to be examined: everything a PPO run loads, and sixteen responses of its policy."""

import math
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlhf.config import PPOConfig, ValueWarmup
from rlhf.data.examples import TokenizedExample
from rlhf.data.prompts import ShuffledPasses
from rlhf.maths.tensors import masked_mean
from rlhf.models.rounding import jolted
from rlhf.policy.policy import PolicyOutput
from rlhf.ppo.trainer import PPOTrainer
from rlhf.rewards import RewardSum
from rlhf.sampling.responses import Responses
from rlhf.stages.ppo import build_trainer

N_SAMPLES = 16
ROUNDING_FACTOR, NEGLIGIBLE = 5.0, 1e-4
"""Two computations of the same log-probabilities may differ by this many times what rounding does to them, or by so
little (nats per token) that it does not matter."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A trainer that has not trained yet, and what its policy answers to the first prompts.

    Attributes:
        config: Of the run, as the user wrote it.
        trainer: The run's own, on a batch of 16 responses.
        prompts: All training prompts.
        responses: To 16 of them.
        old: The forward pass of the policy over the responses.
        ref: That of the reference.
        rounding: What one rounding does to a log-probability: nats per token, in the worst response.
        seconds_per_response: Sampling time.
    """

    config: PPOConfig
    trainer: PPOTrainer
    prompts: list[TokenizedExample]
    responses: Responses
    old: PolicyOutput
    ref: PolicyOutput
    rounding: float
    seconds_per_response: float

    @property
    def tolerance(self) -> float:
        """Nats per token that all rounding together may cost."""
        return max(NEGLIGIBLE, ROUNDING_FACTOR * self.rounding)

    def reference_logprobs(self) -> Tensor:
        """The reference's log-probabilities of the responses, as it is now."""
        with self.trainer.policy.reference():
            return self.trainer.forward(self.responses, with_values=False, with_entropy=False).logprobs


def build_trial_trainer(config: PPOConfig, rewards: RewardSum) -> PPOTrainer:
    """The run's trainer, on a batch of 16 (or a few more, where that is not a multiple of num_generations)."""
    per_prompt = config.num_generations
    n = per_prompt * -(-N_SAMPLES // per_prompt)
    small = replace(
        config,
        batch_size=n,
        mini_batch_size=min(config.mini_batch_size, n),
        num_ppo_epochs=1,
        value_warmup=ValueWarmup(),  # or the policy would not be updated
        num_processes=None,
    )
    return build_trainer(small, rewards)


def worst_row(difference: Tensor, response_mask: Tensor) -> float:
    """The largest mean of |difference| over the tokens of a response, [B, T] each: a fault in one row shows."""
    means = masked_mean(difference.abs(), response_mask, dim=-1)
    return float(means.max() if means.isfinite().all() else math.inf)


def rounding_of(trainer: PPOTrainer, responses: Responses, logprobs: Tensor) -> float:
    """How far log-probabilities move when every number that enters the model is off by up to one rounding."""
    with jolted(trainer.policy.language_model):
        found = trainer.forward(responses, with_values=False, with_entropy=False).logprobs
    return worst_row(found - logprobs, responses.response_mask)


def training_prompts(trainer: PPOTrainer) -> list[TokenizedExample]:
    """All prompts of the data set; with an environment what it begins with."""
    assert isinstance(trainer.prompts, ShuffledPasses)  # the config names a data set
    prompts = trainer.prompts.prompts
    if trainer.episodes is None:
        return prompts
    return [conversation.prompt for conversation in trainer.episodes.begin(trainer.seeded(prompts, "doctor"))]


def run_trial(config: PPOConfig, trainer: PPOTrainer) -> Trial:
    """Sample, and let policy and reference read the responses."""
    started = time.perf_counter()
    responses = trainer.sample(trainer.next_prompts())
    seconds = (time.perf_counter() - started) / len(responses)
    old = trainer.forward(responses, with_values=False, with_entropy=True)
    with torch.no_grad(), trainer.policy.reference():
        ref = trainer.forward(responses, with_values=False, with_entropy=False)
    return Trial(
        config=config,
        trainer=trainer,
        prompts=training_prompts(trainer),
        responses=responses,
        old=old,
        ref=ref,
        rounding=rounding_of(trainer, responses, old.logprobs),
        seconds_per_response=seconds,
    )
