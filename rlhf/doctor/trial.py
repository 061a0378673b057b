"""The run to be examined: everything a PPO run loads, and sixteen responses of its policy."""

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlhf.config import PPOConfig, ValueWarmup
from rlhf.data.examples import TokenizedExample
from rlhf.data.prompts import ShuffledPasses
from rlhf.policy.policy import PolicyOutput
from rlhf.ppo.trainer import PPOTrainer
from rlhf.rewards import RewardSum
from rlhf.sampling.responses import Responses
from rlhf.stages.ppo import build_trainer

N_SAMPLES = 16
LOGPROB_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.3}
"""Nats per token by which two computations of the same log-probability may differ: what rounding does when the same
numbers are added up in another order, with room for deep models."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A trainer that has not trained yet, and what its policy answers to the first prompts.

    Attributes:
        config: Of the run, as the user wrote it.
        trainer: The run's own, on a batch of 16 responses.
        prompts: All training prompts.
        responses: To 16 of them.
        old: What the policy says of the responses.
        ref: What the reference says of them.
        seconds_per_response: Sampling time.
    """

    config: PPOConfig
    trainer: PPOTrainer
    prompts: list[TokenizedExample]
    responses: Responses
    old: PolicyOutput
    ref: PolicyOutput
    seconds_per_response: float

    @property
    def tolerance(self) -> float:
        """Nats per token that rounding may cost."""
        return LOGPROB_TOLERANCE[self.config.model.dtype]

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


def training_prompts(trainer: PPOTrainer) -> list[TokenizedExample]:
    """All prompts of the data set."""
    assert isinstance(trainer.prompts, ShuffledPasses)  # the config names a data set
    return trainer.prompts.prompts


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
        seconds_per_response=seconds,
    )
