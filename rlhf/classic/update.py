"""The update of `rlhf.ppo.trainer` on what the caller brings, through the methods of TRL that a subclass overrides."""

import dataclasses
from concurrent.futures import Future
from typing import Any

import torch
from torch import Tensor

from rlhf.classic.batch import Batch
from rlhf.classic.methods import CREDIT, FORWARD, LOSS, MINIBATCH, Methods
from rlhf.classic.shapes import Places, query_rows, response_rows
from rlhf.config.checks import require
from rlhf.data.examples import TokenizedExample
from rlhf.maths.kl import kl_estimate, kl_from_logits
from rlhf.maths.losses import clipped_policy_loss, clipped_value_loss
from rlhf.maths.tensors import entropy_from_logits
from rlhf.ppo.credit import advantages_and_returns
from rlhf.ppo.rollout import Experience, Rollout, in_order
from rlhf.ppo.stopwatch import Stopwatch
from rlhf.ppo.trainer import PPOTrainer
from rlhf.ppo.update import ClippedEpochs, Metrics, mean_stats
from rlhf.rewards import Scores
from rlhf.sampling.responses import Responses

TRAIN_STATS = {
    "loss/policy": "policy/loss",
    "loss/value": "critic/loss",
    "policy/approxkl": "policy/approx_kl",
    "policy/policykl": "policy/approx_kl_k1",
    "policy/clipfrac": "policy/clip_fraction",
    "policy/ratio": "policy/ratio_mean",
    "val/clipfrac": "critic/clip_fraction",
}
"""Statistics of the optimizer steps: TRL's names and ours."""


class StepTrainer(PPOTrainer):
    """The update of PPO on responses and scores that the caller brings.

    Attributes:
        given: What was brought, set before each update.
        methods: The classic trainer, which may override stages.
    """

    given: Batch
    methods: Methods = Methods()

    def next_prompts(self) -> list[TokenizedExample]:
        """None: the responses are there."""
        return []

    def sample_and_score(self, prompts: list[TokenizedExample]) -> tuple[Responses, list[Future[Scores]]]:
        """The caller's responses and scores."""
        scores: Future[Scores] = Future()
        scores.set_result(self.given.scores)
        return self.given.responses.to(self.policy.device), [scores]

    def learning_rate_factor(self) -> float:
        """1: the optimizer's parameter groups say what the learning rate is."""
        return 1.0

    def evaluate(self, responses: Responses, clock: Stopwatch) -> Experience:
        """As usual, or by the `batched_forward_pass` of a subclass."""
        if not forwards_by_methods(self.methods):
            return super().evaluate(responses, clock)
        order, parts = [], []
        for index, part in responses.split_by_length(self.config.micro_batch_size):
            order.append(index)
            parts.append(self.evaluate_part(part))
        clock.lap("reference")
        clock.lap("evaluation")
        width = responses.response_mask.shape[1]
        joined = {name: in_order(order, [part[name] for part in parts], width) for name in parts[0]}
        return Experience(**vars(responses) | joined)

    @torch.no_grad()
    def evaluate_part(self, part: Responses) -> dict[str, Tensor]:
        """The outputs of the networks for a micro-batch, each [b, t], and the mask, which the method may change."""
        methods, exact = self.methods, self.config.kl_estimator == "exact"
        queries, responses, inputs, places = as_trl_has_it(methods, part)
        logprobs, logits, values, masks = methods.batched_forward_pass(
            methods.model, queries, responses, inputs, return_logits=True
        )
        has_reference = self.policy.frozen_reference is not None
        with self.policy.reference():
            ref_logprobs, ref_logits, _, _ = methods.batched_forward_pass(
                methods.ref_model if has_reference else methods.model, queries, responses, inputs, return_logits=exact
            )
        assert logits is not None
        if ref_logits is not None:
            kl = kl_from_logits(logits, ref_logits)
        else:
            kl = kl_estimate(logprobs, ref_logprobs, self.config.kl_estimator)
        mask = part.response_mask & places.of_response(masks).bool()
        numbers = {
            "old_logprobs": logprobs, "ref_logprobs": ref_logprobs, "entropy": entropy_from_logits(logits),
            "old_values": values, "kl": kl,
        }  # fmt: skip
        return {"response_mask": mask} | {
            name: torch.where(mask, places.of_response(x.float()), 0.0) for name, x in numbers.items()
        }

    def credit(self, experience: Experience, component_scores: Scores) -> Rollout:
        """As usual, with the rewards per token that came with the step, and the methods that a subclass overrides."""
        rollout, by_methods = super().credit(experience, component_scores), self.methods.overrides(*CREDIT)
        given = self.token_rewards(rollout)
        if by_methods:
            return self.credit_by_methods(rollout, given)
        if not given.any():
            return rollout
        rewards = rollout.rewards + given
        advantages, returns = advantages_and_returns(self.config, rewards, rollout.old_values, rollout.response_mask)
        scores = rollout.scores + given.sum(-1)
        return dataclasses.replace(rollout, scores=scores, rewards=rewards, advantages=advantages, returns=returns)

    def token_rewards(self, rollout: Rollout) -> Tensor:
        """The rewards per token that all processes were given, 0 where there was a score: [B, T]."""
        given = torch.zeros(rollout.rewards.shape)
        rows = [row for share in self.ranks.gather(self.given.token_rewards) for row in share]
        for row, values in enumerate(rows):
            given[row, : len(values)] = torch.tensor(values)
        return given.to(rollout.rewards)

    def credit_by_methods(self, rollout: Rollout, given: Tensor) -> Rollout:
        """Rewards, advantages and returns as `compute_rewards` and `compute_advantages` have them."""
        require(
            self.config.kl_estimator != "exact",
            "kl_penalty 'full' does not go with an overridden compute_rewards or _kl_penalty, which would need the "
            "log-probabilities of the whole vocabulary at every token; use 'kl', which has the same expectation",
        )
        places, width = Places.of(rollout), rollout.sequence_ids.shape[1] - 1
        values, logprobs, ref_logprobs, mask = (
            places.along_sequence(x, width)
            for x in (rollout.old_values, rollout.old_logprobs, rollout.ref_logprobs, rollout.response_mask)
        )
        rewards, _, kl = self.methods.compute_rewards(rollout.scores, logprobs, ref_logprobs, mask.long())
        rewards = rewards + places.along_sequence(given, width)
        values, advantages, returns = self.methods.compute_advantages(values, rewards, mask.long())
        names = {"rewards": rewards, "kl": kl, "old_values": values, "advantages": advantages, "returns": returns}
        inside: dict[str, Any] = {
            name: torch.where(rollout.response_mask, places.of_response(x.detach()), 0.0) for name, x in names.items()
        }
        return dataclasses.replace(rollout, scores=rollout.scores + given.sum(-1), **inside)


class StepEpochs(ClippedEpochs):
    """Clipped epochs with the optimizer of the classic trainer, whose learning rates are its own or the caller's.

    Attributes:
        methods: The classic trainer, which may override stages.
    """

    methods: Methods

    def set_learning_rates(self, lr_factor: float) -> None:
        """None: the optimizer of the caller has its own."""

    def run(self, rollout: Rollout, lr_factor: float, critic_only: bool) -> Metrics:
        """As usual, or by the `train_minibatch` of a subclass."""
        if not self.methods.overrides(*MINIBATCH):
            return super().run(rollout, lr_factor, critic_only)
        steps = self.run_by_methods(rollout)
        metrics = mean_stats([self.as_ours(step) for step in steps])
        done = {"policy/warmup": 0.0, "policy/steps": float(len(steps)), "policy/skipped_steps": 0.0}
        return metrics | done | {"policy/learning_rate": self.optimizer.param_groups[0]["lr"]}

    def run_by_methods(self, rollout: Rollout) -> list[dict[str, Tensor]]:
        """The statistics of every minibatch, mini_batch_size rows each."""
        methods, config = self.methods, self.methods.config
        require(self.ranks.count == 1, "an overridden train_minibatch or _early_stop runs on one process; use loss")
        methods.accelerator.gradient_accumulation_steps = config.gradient_accumulation_steps
        steps = []
        for _ in range(config.ppo_epochs):
            order = torch.randperm(len(rollout), generator=self.shuffler)
            for backward_batch in order.split(config.backward_batch_size):
                methods.accelerator.step = 0
                for index in backward_batch.split(config.mini_batch_size):
                    part = rollout.rows(index.to(self.policy.device))
                    with methods.accelerator.accumulate(methods.model):
                        steps.append(dict(methods.train_minibatch(*self.tensors(part))))
            if methods._early_stop(steps[-1]["policy/policykl"]):
                break
        return steps

    def gradient(self, minibatch: Rollout, critic_only: bool) -> Metrics:
        """As usual; none where the policy has moved further than ratio_threshold."""
        metrics = super().gradient(minibatch, critic_only)
        if self.methods.ratio_is_too_large(metrics["policy/ratio_mean"]):
            self.optimizer.zero_grad()
        return metrics

    def loss(self, batch: Rollout, critic_only: bool) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """As usual, or by the `loss` or `batched_forward_pass` of a subclass."""
        methods, config = self.methods, self.config
        if not (methods.overrides(*LOSS) or forwards_by_methods(methods)):
            return super().loss(batch, critic_only)
        require(self.ranks.count == 1, "an overridden loss or batched_forward_pass runs on one process")
        old_logprobs, values, logprobs, logits, vpreds, mask, advantages, returns = self.tensors(batch)
        policy_loss, value_loss, theirs = methods.loss(
            old_logprobs, values, logits, vpreds, logprobs, mask, advantages, returns
        )
        with torch.no_grad():
            is_action = mask.bool()
            _, policy = clipped_policy_loss(logprobs, old_logprobs, advantages, is_action, config.clip_range)
            critic_loss, critic = clipped_value_loss(vpreds, values, returns, is_action, config.value_clip_range)
        stats = {f"policy/{name}": value for name, value in policy.items()}
        stats |= {f"critic/{name}": value for name, value in critic.items()}
        stats |= {f"ppo/{name}": value.detach().float().mean() for name, value in theirs.items() if name not in KNOWN}
        losses = {"policy/loss": policy_loss.detach(), "critic/loss": critic_loss}
        return policy_loss + value_loss, losses, stats

    def tensors(self, batch: Rollout) -> tuple[Any, ...]:
        """A micro-batch as `train_minibatch` takes it, the model's forward pass with gradients among it."""
        methods = self.methods
        queries, responses, inputs, places = as_trl_has_it(methods, batch)
        logprobs, logits, vpreds, _ = methods.batched_forward_pass(
            methods.model, queries, responses, inputs, return_logits=True
        )

        def wide(x: Tensor) -> Tensor:
            return places.along_sequence(x, logprobs.shape[1])

        mask = wide(batch.response_mask).long()
        advantages, returns = wide(batch.advantages), wide(batch.returns)
        return wide(batch.old_logprobs), wide(batch.old_values), logprobs, logits, vpreds, mask, advantages, returns

    def as_ours(self, theirs: dict[str, Tensor]) -> Metrics:
        """Statistics of `train_minibatch` under our names; those that TRL does not have below ppo/."""
        ours = {name: float(theirs[trl].float().mean()) for trl, name in TRAIN_STATS.items() if trl in theirs}
        ours.setdefault("policy/ratio_mean", float("nan"))
        more = {f"ppo/{name}": float(x.float().mean()) for name, x in theirs.items() if name not in KNOWN}
        return ours | more


KNOWN = {
    *TRAIN_STATS, "loss/total", "policy/entropy", "policy/advantages", "policy/advantages_mean", "returns/mean",
    "returns/var", "val/vpred", "val/error", "val/mean", "val/var",
}  # fmt: skip
"""Statistics of TRL that are measured in any case."""


def forwards_by_methods(methods: Methods) -> bool:
    """Whether the model has to be run by the trainer's own methods, padding and all."""
    return methods.overrides(*FORWARD) or methods.data_collator is not methods.default_collator


def as_trl_has_it(methods: Methods, part: Responses) -> tuple[list[Tensor], list[Tensor], Any, Places]:
    """Queries, responses, the model's inputs, and where the response tokens are in them."""
    queries, responses = query_rows(part), response_rows(part)
    inputs = methods.prepare_model_inputs(queries, responses)
    return queries, responses, inputs, Places.of(part, offsets=inputs["attention_mask"].int().argmax(-1))
