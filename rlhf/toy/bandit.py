"""The five-armed bandit: REINFORCE, PPO, and PPO with a KL penalty, where the answer is known in closed form.

With a KL penalty the best policy is  pi*(a) = pi_ref(a) exp(r(a) / beta) / Z.  That PPO finds it checks the sign of
the KL, the shaping of the reward, the advantages and the clipped loss together.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.maths.advantages import gae, kl_shaped_rewards
from rlhf.maths.kl import kl_estimate
from rlhf.maths.losses import clipped_policy_loss, clipped_value_loss, reinforce_loss
from rlhf.maths.tensors import logprobs_from_logits
from rlhf.toy.config import BanditConfig
from rlhf.toy.seeds import choose, generators, normal, per_run, uniform

MEANS = (0.2, 0.5, 0.8, 0.3, 0.1)  # expected reward of each arm
NOISE = 0.1  # standard deviation of one pull

SMALL_BATCH, LARGE_BATCH = 8, 256  # pulls per update: small shows the noise, large finds the optimum
METHODS = ("REINFORCE, no baseline", "REINFORCE, baseline", "PPO")
REFERENCES = {
    "uniform": (0.2, 0.2, 0.2, 0.2, 0.2),
    "favors arm 0": (0.6, 0.1, 0.1, 0.1, 0.1),
    "against arm 2": (0.3, 0.3, 0.02, 0.2, 0.18),
}


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a batch of runs did: S seeds, C settings beside each other, A arms."""

    probabilities: Tensor  # [updates + 1, S, C, A], the policy before each update and after the last
    pulls_per_update: int

    @property
    def final(self) -> Tensor:
        """The last policy of each run, [S, C, A]."""
        return self.probabilities[-1]


def optimal_policy(reference: Tensor, kl_coef: Tensor) -> Tensor:
    """pi_ref exp(r / beta) / Z: reference [C, A] and beta [C] -> [C, A]."""
    return (reference.log() + torch.tensor(MEANS) / kl_coef.unsqueeze(-1)).softmax(-1)


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """Half the L1 distance of two distributions over the last dimension."""
    return (p - q).abs().sum(-1) / 2


def learn(
    config: BanditConfig, method: str, reference: Tensor, kl_coef: Tensor, batch_size: int, updates: int
) -> Learned:
    """Train from the reference [C, A] under kl_coef [C], for every seed of the config, all runs in one batch."""
    streams = generators(config.seed, config.seeds)
    settings = len(reference)
    ref_logits = reference.log().repeat(config.seeds, 1)  # [runs, A]
    kl_coef = kl_coef.repeat(config.seeds)  # [runs]
    logits = ref_logits.clone().requires_grad_()
    value = torch.zeros(len(logits), 1, requires_grad=True)  # the critic: with one state, one number
    optimizer = torch.optim.Adam([logits, value], config.lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, updates)
    response_mask = torch.ones(len(logits), batch_size, 1, dtype=torch.bool)  # a pull is a response of one token
    has_critic = method != METHODS[0]
    history = [logits.detach().softmax(-1)]

    def evaluate(actions: Tensor) -> tuple[Tensor, Tensor]:
        logprobs = logprobs_from_logits(logits.unsqueeze(1).expand(-1, batch_size, -1), actions).unsqueeze(-1)
        return logprobs, value.unsqueeze(1).repeat(1, batch_size, 1)  # [runs, batch, 1] each

    for _ in range(updates):
        # 1. Sample: pull arms and remember how likely each pull was, then and under the reference.
        u = uniform(streams, settings, batch_size).flatten(0, 1)
        actions = choose(history[-1], u)
        with torch.no_grad():
            old_logprobs, old_values = evaluate(actions)
            ref_logprobs = ref_logits.log_softmax(-1).gather(-1, actions).unsqueeze(-1)
        # 2. Score, and charge for the distance from the reference.
        noise = normal(streams, settings, batch_size).flatten(0, 1)
        scores = torch.tensor(MEANS)[actions] + NOISE * noise
        kl = kl_estimate(old_logprobs, ref_logprobs, "k1")
        rewards = per_run(kl_shaped_rewards)(scores, kl, response_mask, kl_coef)
        # 3. Advantages: without a critic the reward itself.
        baseline = old_values if has_critic else torch.zeros_like(old_values)
        advantages, returns = per_run(gae, gamma=1.0, gae_lambda=0.95)(rewards, baseline, response_mask)
        # 4. One step for REINFORCE, several clipped ones for PPO.
        for _ in range(config.epochs if method == "PPO" else 1):
            logprobs, values = evaluate(actions)
            loss = _policy_loss(config, method, logprobs, old_logprobs, advantages, response_mask)
            value_loss, _ = per_run(clipped_value_loss, value_clip_range=None)(
                values, old_values, returns, response_mask
            )
            optimizer.zero_grad()
            (loss + config.vf_coef * value_loss).sum().backward()  # a sum over runs: none touches another's gradient
            optimizer.step()
        schedule.step()
        history.append(logits.detach().softmax(-1))
    probabilities = torch.stack(history).unflatten(1, (config.seeds, settings))
    return Learned(probabilities=probabilities, pulls_per_update=batch_size)


def _policy_loss(
    config: BanditConfig, method: str, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor
) -> Tensor:
    """The loss of each run, [runs]."""
    if method == "PPO":
        clipped = per_run(clipped_policy_loss, clip_range=config.clip_range)
        return clipped(logprobs, old_logprobs, advantages, mask)[0]
    return per_run(reinforce_loss)(logprobs, advantages, mask)


def compare_methods(config: BanditConfig) -> dict[str, Learned]:
    """Every method from the uniform policy, without a KL penalty, on equally many pulls."""
    uniform_policy, no_penalty = torch.tensor([REFERENCES["uniform"]]), torch.zeros(1)
    updates = config.pulls // SMALL_BATCH
    return {m: learn(config, m, uniform_policy, no_penalty, SMALL_BATCH, updates) for m in METHODS}


def settings_with_penalty(config: BanditConfig) -> tuple[Tensor, Tensor]:
    """Every reference with every beta: references [C, A] and betas [C], reference by reference."""
    references, kl_coefs = torch.tensor(list(REFERENCES.values())), torch.tensor(config.kl_coefs)
    return references.repeat_interleave(len(kl_coefs), 0), kl_coefs.repeat(len(references))
