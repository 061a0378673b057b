"""PPO: sample, score, estimate advantages, update, report."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlhf.config import PPOConfig
from rlhf.data import TokenizedExample, collate_columns
from rlhf.diagnostics import rollout_metrics
from rlhf.losses import (
    AdaptiveKLController,
    FixedKLController,
    gae,
    group_relative,
    kl_estimate,
    kl_shaped_rewards,
    leave_one_out,
    reward_per_token,
)
from rlhf.optimization import ClippedEpochs, Metrics
from rlhf.policy import Evaluation, Policy
from rlhf.rewards import RewardSum, Scores
from rlhf.rollout import Responses, Rollout, evaluate_responses, sample_responses
from rlhf.spans import span_rewards
from rlhf.stopwatch import Stopwatch
from rlhf.tensors import explained_variance, whiten, zero_outside

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedTokenizerFast


class PPOTrainer:
    """Proximal policy optimization of a language model (Schulman et al. 2017; Ziegler et al. 2019).

    Args:
        config: The stage's settings.
        policy: Policy, critic and reference.
        tokenizer: Decodes responses; its EOS ends them.
        rewards: The weighted sum of reward components.
        prompts: Tokenized prompts; each update takes the next ones of a shuffled pass.
        accelerator: Runs the backward passes.
    """

    def __init__(
        self,
        config: PPOConfig,
        policy: Policy,
        tokenizer: "PreTrainedTokenizerFast",
        rewards: RewardSum,
        prompts: list[TokenizedExample],
        accelerator: "Accelerator",
    ) -> None:
        self.config, self.policy, self.tokenizer, self.rewards = config, policy, tokenizer, rewards
        self.accelerator = accelerator
        self.kl_controller = kl_controller(config)
        self.generator = torch.Generator(device=policy.device).manual_seed(config.seed)
        self.shuffler = torch.Generator().manual_seed(config.seed)
        self.prompts = shuffled_passes(prompts, self.shuffler)
        self.epochs = ClippedEpochs(config, policy, accelerator, self.shuffler)
        self.background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rewards")
        self.warming_up = config.uses_critic and config.value_warmup.max_updates > 0
        self.updates_done = 0

    def update(self) -> tuple[Rollout, Scores, Metrics]:
        """One round of PPO: a fresh rollout, `epochs` passes over it, and what there is to say about them."""
        config, clock = self.config, Stopwatch()

        # 1. Sample responses; the texts are scored while the reference reads them.
        responses = self.sample()
        clock.lap("rollout")
        scoring = self.background.submit(self.score, responses)
        with self.policy.reference():
            ref = self.evaluate(responses, with_values=False, with_entropy=False)
        clock.lap("reference")
        raw, scores = scoring.result()
        clock.lap("reward")

        # 2. Policy and critic at the start of the update; score and KL penalty spread over the tokens.
        if self.updates_done == 0:
            self.policy.start_values_at(float(scores.mean()))
        old = self.evaluate(responses, with_values=config.uses_critic, with_entropy=True)
        kl = kl_estimate(old.logprobs, ref.logprobs, config.kl_estimator)
        rewards = kl_shaped_rewards(scores, kl, responses.response_mask, self.kl_controller.kl_coef)
        rewards = rewards + span_rewards(raw.spans, responses, self.tokenizer)
        clock.lap("evaluation")

        # 3. Advantages and returns; whiten.
        advantages, returns = self.advantages(rewards, old.values, responses.response_mask)
        rollout = Rollout(
            **vars(responses),
            old_logprobs=old.logprobs,
            ref_logprobs=ref.logprobs,
            entropy=old.entropy,
            old_values=old.values,
            scores=scores,
            kl=kl,
            rewards=rewards,
            advantages=advantages,
            returns=returns,
        )

        # 4. Clipped epochs over the rollout.
        self.end_warmup_when_explained(rollout)
        trained = self.epochs.run(rollout, self.learning_rate_factor(), critic_only=self.warming_up)
        clock.lap("update")

        # 5. Report, and steer the KL coefficient.
        metrics = (
            rollout_metrics(rollout, raw, self.kl_controller.kl_coef)
            | trained
            | clock.metrics(int(rollout.lengths.sum()))
        )
        self.kl_controller.update(metrics["objective/kl"], len(rollout))
        self.updates_done += 1
        return rollout, raw, metrics

    def sample(self) -> Responses:
        """`samples_per_prompt` responses to each of the next prompts."""
        n_prompts = self.config.batch_size // self.config.samples_per_prompt
        prompts = [next(self.prompts) for _ in range(n_prompts)]
        repeated = [prompt for prompt in prompts for _ in range(self.config.samples_per_prompt)]
        return sample_responses(self.policy, self.tokenizer, repeated, self.config.sampling, self.generator)

    def evaluate(self, responses: Responses, *, with_values: bool, with_entropy: bool) -> Evaluation:
        """Log-probabilities (and values, entropy) of sampled responses, without gradients."""
        return evaluate_responses(
            self.policy,
            responses,
            self.config.sampling.temperature,
            self.config.micro_batch_size,
            with_values=with_values,
            with_entropy=with_entropy,
        )

    def score(self, responses: Responses) -> tuple[Scores, Tensor]:
        """The rewards' verdict, and from it scores [B]: clipped, minus the penalty for a missing EOS."""
        config = self.config
        prompts = [example.prompt for example in responses.examples]
        raw = self.rewards(prompts, responses.texts, collate_columns(responses.examples))
        scores = torch.tensor(raw.total, device=self.policy.device)
        if config.score_clip is not None:
            scores = scores.clamp(-config.score_clip, config.score_clip)
        return raw, scores - config.missing_eos_penalty * (~responses.has_eos)

    def advantages(self, rewards: Tensor, values: Tensor, response_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Advantages (whitened if asked for) and returns, each [B, T]."""
        config = self.config
        if config.advantage == "gae":
            advantages, returns = gae(rewards, values, response_mask, config.gamma, config.gae_lambda)
        else:
            advantages = self.critic_free_advantages(rewards.sum(-1), response_mask)
            returns = torch.zeros_like(rewards)
        if config.whiten_advantages:
            advantages = whiten(advantages, response_mask)
        return advantages, returns

    def critic_free_advantages(self, totals: Tensor, response_mask: Tensor) -> Tensor:
        """From what each response earned in all [B], KL penalty included, to advantages [B, T]."""
        k = self.config.samples_per_prompt
        if self.config.advantage == "rloo":
            totals = leave_one_out(totals, k)
        elif self.config.advantage == "group_relative":
            totals = group_relative(totals, k)
        else:
            return reward_per_token(totals, response_mask)
        return zero_outside(totals.unsqueeze(-1), response_mask)

    def end_warmup_when_explained(self, rollout: Rollout) -> None:
        """Leave the warm-up once the critic explains enough of returns it was not trained on, or at its limit."""
        if self.warming_up:
            explained = explained_variance(rollout.old_values, rollout.returns, rollout.response_mask)
            warmup = self.config.value_warmup
            good_enough = self.updates_done > 0 and float(explained) >= warmup.explained_variance
            self.warming_up = not good_enough and self.updates_done < warmup.max_updates

    def learning_rate_factor(self) -> float:
        """Share of the peak learning rate: falls to 0 over the updates, or stays 1."""
        return 1 - self.updates_done / self.config.updates if self.config.lr_schedule == "linear" else 1.0


def kl_controller(config: PPOConfig) -> FixedKLController:
    """Adaptive where there is a target to steer to, else fixed."""
    if config.kl_target is None:
        return FixedKLController(config.kl_coef)
    return AdaptiveKLController(config.kl_coef, config.kl_target, config.kl_horizon)


def shuffled_passes(prompts: list[TokenizedExample], generator: torch.Generator) -> Iterator[TokenizedExample]:
    """Every prompt once in a random order, then again in another one, for ever."""
    while True:
        for index in torch.randperm(len(prompts), generator=generator).tolist():
            yield prompts[index]
