"""The clipped epochs of PPO: how a rollout becomes optimizer steps."""

import math

import torch
from torch import Tensor

from rlhf.config import PPOConfig
from rlhf.errors import UserError
from rlhf.maths.losses import aggregate, clipped_policy_loss, clipped_value_loss, truncated_importance_weights
from rlhf.maths.tensors import masked_mean
from rlhf.models.shares import alike, clip_grad_norm, sum_gradients
from rlhf.parallel.ranks import Ranks
from rlhf.policy.policy import Policy
from rlhf.ppo.rollout import Rollout

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
        ranks: The processes that share each minibatch.
        shuffler: Draws the minibatches; must draw the same on all ranks.
    """

    def __init__(self, config: PPOConfig, policy: Policy, ranks: Ranks, shuffler: torch.Generator) -> None:
        self.config, self.policy, self.ranks, self.shuffler = config, policy, ranks, shuffler
        self.parameters = {"policy": policy.policy_parameters(), "critic": policy.critic_parameters()}
        rates = {"policy": config.learning_rate, "critic": config.critic_learning_rate}
        groups = [{"params": p, "peak_lr": rates[name]} for name in rates for p in alike(self.parameters[name])]
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=0.0)
        self.skipped_in_a_row = 0

    def run(self, rollout: Rollout, lr_factor: float, critic_only: bool) -> Metrics:
        """`num_ppo_epochs` passes over the rollout in shuffled minibatches; the mean of each statistic over the steps.

        The last minibatch of an epoch may be smaller. Ends early, without using the gradient at hand, where the policy
        has moved further than `target_kl`. A step is skipped, counted and left out of the means where the loss or its
        gradient is not finite: AdamW would never recover from it. Raises NonFiniteError after too many of those in a
        row.
        """
        config = self.config
        self.set_learning_rates(lr_factor)
        minibatches = (
            index
            for _ in range(config.num_ppo_epochs)
            for index in torch.randperm(len(rollout), generator=self.shuffler).split(config.mini_batch_size)
        )
        steps: list[Metrics] = []
        n_skipped = 0
        for index in minibatches:
            minibatch = rollout.rows(index.to(self.policy.device))
            stats = self.gradient(minibatch, critic_only)
            if config.target_kl is not None and stats["policy/approx_kl"] > config.target_kl:
                break
            if all(math.isfinite(value) for value in stats.values()):
                self.optimizer.step()
                steps.append(stats)
                self.skipped_in_a_row = 0
            else:
                n_skipped += 1
                self.skipped_in_a_row += 1
                self.give_up_after_too_many(minibatch)
        return mean_stats(steps) | {
            "policy/learning_rate": self.optimizer.param_groups[0]["lr"],
            "policy/warmup": float(critic_only),
            "policy/steps": float(len(steps)),
            "policy/skipped_steps": float(n_skipped),
        }

    def set_learning_rates(self, lr_factor: float) -> None:
        """Each parameter group's share of its peak."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * lr_factor

    def gradient(self, minibatch: Rollout, critic_only: bool) -> Metrics:
        """The gradient of the minibatch's mean loss, clipped, and its statistics; the same on all ranks.

        Every rank runs its share in micro-batches, whose losses weigh as much as their part of what the mean is over:
        the minibatch's tokens or, with loss_aggregation sequence_mean, its responses.
        """
        n_tokens, n_terms = minibatch.response_mask.sum(), self.terms(minibatch)
        sums: dict[str, Tensor] = {}
        self.optimizer.zero_grad()
        for _, micro_batch in minibatch.split_by_length(self.config.micro_batch_size, self.ranks):
            loss, losses, stats = self.loss(micro_batch, critic_only)
            share, token_share = self.terms(micro_batch) / n_terms, micro_batch.response_mask.sum() / n_tokens
            (loss * share).backward()
            parts = {name: value * token_share for name, value in stats.items()}
            parts |= {name: value * share for name, value in losses.items()}
            sums = {name: sums.get(name, 0.0) + part for name, part in parts.items()}
        sum_gradients(self.ranks, [parameter for _, parameter in self.policy.trainable])
        values = self.ranks.sum(torch.stack(list(sums.values()))).tolist()
        metrics = dict(zip(sums, values, strict=True))
        for name, parameters in self.parameters.items():
            metrics[f"{name}/grad_norm"] = clip_grad_norm(parameters, self.config.max_grad_norm)
        return metrics

    def terms(self, batch: Rollout) -> Tensor:
        """What the mean of the loss is over: response tokens, or responses that have any."""
        is_token = batch.response_mask
        return is_token.sum() if self.config.loss_aggregation == "token_mean" else is_token.any(-1).sum()

    def loss(self, batch: Rollout, critic_only: bool) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """policy loss + vf_coef * value loss - entropy_coef * entropy; during the warm-up the value loss alone.

        Also the losses one by one, and statistics that are means over tokens.
        """
        config, mask = self.config, batch.response_mask
        now = self.policy(
            batch.sequence_ids,
            batch.prompt_lengths,
            mask,
            config.sampling.temperature,
            with_values=config.uses_critic,
            with_entropy=config.entropy_coef > 0,
            critic_only=critic_only,
        )
        weights, weight_stats = self.importance_weights(batch)
        loss, policy_stats = clipped_policy_loss(
            now.logprobs,
            batch.old_logprobs,
            batch.advantages,
            mask,
            config.clip_range,
            config.dual_clip,
            config.loss_aggregation,
            weights,
        )
        losses = {"policy/loss": loss.detach()}
        stats = {f"policy/{name}": value for name, value in policy_stats.items()} | weight_stats
        if config.entropy_coef > 0:
            loss = loss - config.entropy_coef * aggregate(now.entropy, mask, config.loss_aggregation)
        if critic_only:
            loss = torch.zeros_like(loss)
        if config.uses_critic:
            value_loss, value_stats = clipped_value_loss(
                now.values, batch.old_values, batch.returns, mask, config.value_clip_range, config.loss_aggregation
            )
            loss = loss + config.vf_coef * value_loss
            stats |= {f"critic/{name}": value for name, value in value_stats.items()}
            losses["critic/loss"] = value_loss.detach()
        return loss, losses, stats

    def importance_weights(self, batch: Rollout) -> tuple[Tensor | None, dict[str, Tensor]]:
        """What importance_correction multiplies the policy loss with, [B, T], and its statistics.

        Raises UserError where the sampler did not say how probable its tokens were.
        """
        level, cap, mask = self.config.importance_correction, self.config.importance_cap, batch.response_mask
        if level == "none":
            return None, {}
        if batch.sampler_logprobs is None:
            raise UserError(
                f"importance_correction is {level}, but these responses come without sampler_logprobs; "
                "set importance_correction: none, or give them"
            )
        weights = truncated_importance_weights(batch.old_logprobs, batch.sampler_logprobs, mask, level, cap)
        stats = {"weight_mean": weights, "truncated": (weights >= cap).float()}
        return weights, {f"sampling/{name}": masked_mean(x, mask) for name, x in stats.items()}

    def give_up_after_too_many(self, minibatch: Rollout) -> None:
        """Raise NonFiniteError once `max_skipped_steps` steps in a row were skipped."""
        if self.skipped_in_a_row > self.config.max_skipped_steps:
            raise NonFiniteError(
                f"the loss or its gradient was not finite in {self.skipped_in_a_row} optimizer steps in a row "
                f"(max_skipped_steps is {self.config.max_skipped_steps}); lower learning_rate or look at the minibatch",
                minibatch,
            )


def mean_stats(steps: list[Metrics]) -> Metrics:
    """The mean of each statistic over the optimizer steps, and the first minibatch's ratio; empty without a step."""
    if not steps:
        return {}
    means = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
    return means | {"policy/ratio_first_minibatch": steps[0]["policy/ratio_mean"]}
