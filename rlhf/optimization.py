"""The clipped epochs of PPO: how a rollout becomes optimizer steps."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlhf.config import PPOConfig
from rlhf.losses import clipped_policy_loss, clipped_value_loss
from rlhf.policy import Policy
from rlhf.rollout import Rollout
from rlhf.tensors import masked_mean

if TYPE_CHECKING:
    from accelerate import Accelerator

Metrics = dict[str, float]


class ClippedEpochs:
    """AdamW on policy and critic, and the passes over each rollout.

    Args:
        config: The stage's settings.
        policy: What is optimised; the policy's adapters and the critic have a learning rate each.
        accelerator: Runs the backward pass.
        shuffler: Draws the minibatches.
    """

    def __init__(
        self, config: PPOConfig, policy: Policy, accelerator: "Accelerator", shuffler: torch.Generator
    ) -> None:
        self.config, self.accelerator, self.shuffler = config, accelerator, shuffler
        self.policy = policy
        groups = [
            {"params": policy.policy_parameters(), "peak_lr": config.learning_rate},
            {"params": policy.critic_parameters(), "peak_lr": config.critic_learning_rate},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=0.0)

    def run(self, rollout: Rollout, lr_factor: float, critic_only: bool) -> Metrics:
        """`epochs` passes over the rollout in shuffled minibatches; the mean of each statistic over the steps."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * lr_factor
        steps: list[Metrics] = []
        for _ in range(self.config.epochs):
            order = torch.randperm(len(rollout), generator=self.shuffler).to(self.policy.device)
            minibatches = order.split(self.config.minibatch_size)
            steps += [self.step(rollout.rows(index), critic_only) for index in minibatches]
        means = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
        first_ratio = {"policy/ratio_first_minibatch": steps[0]["policy/ratio_mean"]}
        setting = {"policy/learning_rate": self.optimizer.param_groups[0]["lr"], "policy/warmup": float(critic_only)}
        return means | first_ratio | setting

    def step(self, minibatch: Rollout, critic_only: bool) -> Metrics:
        """One optimizer step, in micro-batches whose losses weigh as much as their share of the tokens."""
        n_tokens = minibatch.response_mask.sum()
        stats: Metrics = {}
        self.optimizer.zero_grad(set_to_none=True)
        for _, micro_batch in minibatch.split_by_length(self.config.micro_batch_size):
            share = micro_batch.response_mask.sum() / n_tokens
            loss, micro_stats = self.loss(micro_batch, critic_only)
            self.accelerator.backward(loss * share)
            for name, value in micro_stats.items():
                stats[name] = stats.get(name, 0.0) + float(value * share)
        for name, group in zip(("policy", "critic"), self.optimizer.param_groups, strict=True):
            norm = torch.nn.utils.clip_grad_norm_(group["params"], self.config.max_grad_norm)
            stats[f"{name}/grad_norm"] = float(norm)
        self.optimizer.step()
        return stats

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
