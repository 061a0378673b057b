"""The clipped epochs of PPO: how a rollout becomes optimizer steps."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlhf.config import PPOConfig
from rlhf.errors import UserError
from rlhf.maths.losses import clipped_policy_loss, clipped_value_loss
from rlhf.maths.tensors import masked_mean
from rlhf.parallel.ranks import Ranks
from rlhf.policy.policy import Policy
from rlhf.ppo.rollout import Rollout

if TYPE_CHECKING:
    from accelerate import Accelerator

Metrics = dict[str, float]


class NonFiniteError(UserError):
    """Too many optimizer steps in a row had a gradient that is not finite.

    Attributes:
        minibatch: The rows of the last one, to look at and to replay.
    """

    def __init__(self, message: str, minibatch: Rollout) -> None:
        super().__init__(message)
        self.minibatch = minibatch


class ClippedEpochs:
    """AdamW on policy and critic, and the passes over each rollout.

    Args:
        config: The stage's settings.
        policy: What is optimized; the policy's parameters and the critic's have a learning rate each.
        accelerator: Runs the backward pass; knows the other processes.
        shuffler: Draws the minibatches; must draw the same on all ranks.
    """

    def __init__(
        self, config: PPOConfig, policy: Policy, accelerator: "Accelerator", shuffler: torch.Generator
    ) -> None:
        self.config, self.accelerator, self.shuffler = config, accelerator, shuffler
        self.policy, self.ranks = policy, Ranks.of(accelerator)
        groups = [
            {"params": policy.policy_parameters(), "peak_lr": config.learning_rate},
            {"params": policy.critic_parameters(), "peak_lr": config.critic_learning_rate},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=0.0)
        self.skipped_in_a_row = 0

    def run(self, rollout: Rollout, lr_factor: float, critic_only: bool) -> Metrics:
        """`num_ppo_epochs` passes over the rollout in shuffled minibatches; the mean of each statistic over the steps.

        Ends early where the policy has moved further than `target_kl`. Steps that were skipped because something
        was not finite are counted, and left out of the means. Raises NonFiniteError after too many of those in a row.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * lr_factor
        steps: list[Metrics] = []
        skipped = 0
        for minibatch in self.minibatches(rollout):
            stats = self.gradient(minibatch, critic_only)
            if self.went_too_far(stats):
                break
            if self.take_step(stats):
                steps.append(stats)
                self.skipped_in_a_row = 0
            else:
                skipped += 1
                self.give_up_after_too_many(minibatch)
        means = {name: sum(step[name] for step in steps) / len(steps) for name in (steps[0] if steps else ())}
        if steps:
            means["policy/ratio_first_minibatch"] = steps[0]["policy/ratio_mean"]
        return means | {
            "policy/learning_rate": self.optimizer.param_groups[0]["lr"],
            "policy/warmup": float(critic_only),
            "policy/steps": float(len(steps)),
            "policy/skipped_steps": float(skipped),
        }

    def minibatches(self, rollout: Rollout) -> Iterator[Rollout]:
        """The rollout in shuffled minibatches, once per epoch; the last one of an epoch may be smaller."""
        for _ in range(self.config.num_ppo_epochs):
            order = torch.randperm(len(rollout), generator=self.shuffler).to(self.policy.device)
            for index in order.split(self.config.mini_batch_size):
                yield rollout.rows(index)

    def gradient(self, minibatch: Rollout, critic_only: bool) -> Metrics:
        """The gradient of the minibatch's mean loss, clipped, and its statistics; the same on all ranks.

        Every rank runs its share in micro-batches whose losses weigh as much as their part of the minibatch's tokens.
        """
        n_tokens = minibatch.response_mask.sum()
        sums: dict[str, Tensor] = {}
        self.optimizer.zero_grad(set_to_none=True)
        for _, micro_batch in minibatch.split_by_length(self.config.micro_batch_size, self.ranks):
            share = micro_batch.response_mask.sum() / n_tokens
            loss, stats = self.loss(micro_batch, critic_only)
            self.accelerator.backward(loss * share)
            sums = {name: sums.get(name, 0.0) + value * share for name, value in stats.items()}
        self.ranks.sum_gradients([parameter for _, parameter in self.policy.trainable])
        values = self.ranks.sum(torch.stack(list(sums.values()))).tolist()
        metrics = dict(zip(sums, values, strict=True))
        for name, group in zip(("policy", "critic"), self.optimizer.param_groups, strict=True):
            norm = torch.nn.utils.clip_grad_norm_(group["params"], self.config.max_grad_norm)
            metrics[f"{name}/grad_norm"] = float(norm)
        return metrics

    def went_too_far(self, stats: Metrics) -> bool:
        """Whether the policy has left the one that sampled by more than the limit; the gradient is then not used."""
        limit = self.config.target_kl
        return limit is not None and stats["policy/approx_kl"] > limit

    def take_step(self, stats: Metrics) -> bool:
        """One optimizer step, unless the loss or a gradient is not finite: AdamW would never recover from it."""
        if not all(math.isfinite(value) for value in stats.values()):
            return False
        self.optimizer.step()
        return True

    def give_up_after_too_many(self, minibatch: Rollout) -> None:
        """Raise NonFiniteError once `max_skipped_steps` steps in a row were skipped."""
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row > self.config.max_skipped_steps:
            raise NonFiniteError(
                f"the loss or its gradient was not finite in {self.skipped_in_a_row} optimizer steps in a row "
                f"(max_skipped_steps is {self.config.max_skipped_steps}); lower learning_rate or look at the minibatch",
                minibatch,
            )

    def loss(self, batch: Rollout, critic_only: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """policy loss + vf_coef * value loss - entropy_coef * entropy; during the warm-up the value loss alone."""
        config, mask = self.config, batch.response_mask
        now = self.policy(
            batch.sequence_ids,
            batch.prompt_lengths,
            mask,
            config.sampling.temperature,
            with_values=config.uses_critic,
            with_entropy=config.entropy_coef > 0,
        )
        loss, policy_stats = clipped_policy_loss(
            now.logprobs, batch.old_logprobs, batch.advantages, mask, config.clip_range
        )
        stats = {f"policy/{name}": value for name, value in policy_stats.items()} | {"policy/loss": loss.detach()}
        if config.entropy_coef > 0:
            loss = loss - config.entropy_coef * masked_mean(now.entropy, mask)
        if critic_only:
            loss = torch.zeros_like(loss)
        if config.uses_critic:
            value_loss, value_stats = clipped_value_loss(
                now.values, batch.old_values, batch.returns, mask, config.value_clip_range
            )
            loss = loss + config.vf_coef * value_loss
            stats |= {f"critic/{name}": value for name, value in value_stats.items()}
            stats["critic/loss"] = value_loss.detach()
        return loss, stats
