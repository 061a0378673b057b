"""The contextual bandit: an actor and a critic learn which of five actions suits a four-number context.

The world of a seed is a matrix W [4, 5]; context x is standard normal and action a pays (x W)_a plus noise. Random play
earns 0 on average, the optimum E[max_a (x W)_a]; `gap_closed` is where the trained policy lies between them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.maths.advantages import gae
from rlhf.maths.losses import clipped_policy_loss, clipped_value_loss
from rlhf.maths.tensors import logprobs_from_logits, whiten
from rlhf.toy.config import ContextualConfig
from rlhf.toy.seeds import choose, generators, normal, per_run, uniform

CONTEXT, ACTIONS, NOISE = 4, 5, 0.1
TEST_CONTEXTS = 2000


@dataclass(frozen=True, kw_only=True)
class Network:
    """S two-layer perceptrons side by side, one per seed: [S, B, inputs] -> [S, B, outputs]."""

    parameters: tuple[Tensor, ...]  # weights and biases of the hidden layer, then of the output layer

    @classmethod
    def create(cls, streams: list[torch.Generator], inputs: int, hidden: int, outputs: int) -> "Network":
        """Uniform within +-1/sqrt(fan in), as torch.nn.Linear does."""

        def layer(fan_in: int, *shape: int) -> Tensor:
            return ((2 * uniform(streams, *shape) - 1) / fan_in**0.5).requires_grad_()

        shapes = ((inputs, inputs, hidden), (inputs, 1, hidden), (hidden, hidden, outputs), (hidden, 1, outputs))
        return cls(parameters=tuple(layer(*shape) for shape in shapes))

    def __call__(self, x: Tensor) -> Tensor:
        w1, b1, w2, b2 = self.parameters
        return torch.baddbmm(b2, torch.baddbmm(b1, x, w1).relu(), w2)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The worlds, the actors that learned them, and each update's batch mean of the reward [updates, S]."""

    worlds: Tensor  # [S, 4, 5]
    actor: Network
    rewards: Tensor
    explained: Tensor  # [updates, S], the share of the reward's variance that the critic explains


def train(config: ContextualConfig) -> Trained:
    """PPO on every seed's own world, all seeds in one batch."""
    streams = generators(config.seed, config.seeds)
    worlds = 0.5 * normal(streams, CONTEXT, ACTIONS)
    actor = Network.create(streams, CONTEXT, config.hidden, ACTIONS)
    critic = Network.create(streams, CONTEXT, config.hidden, 1)
    optimizer = torch.optim.Adam([*actor.parameters, *critic.parameters], config.lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, config.updates)
    response_mask = torch.ones(config.seeds, config.batch_size, 1, dtype=torch.bool)  # one action: a one-token response
    history, explained = [], []
    for _ in range(config.updates):
        # 1. Sample: a batch of contexts, one action each.
        contexts = normal(streams, config.batch_size, CONTEXT)
        with torch.no_grad():
            logits, old_values = actor(contexts), critic(contexts)
            actions = choose(logits.softmax(-1), uniform(streams, config.batch_size, 1))  # [S, B, 1]
            old_logprobs = logprobs_from_logits(logits, actions.squeeze(-1)).unsqueeze(-1)
        # 2. Score: one reward per action; no reference, so nothing to charge for.
        payoff = (contexts @ worlds).gather(-1, actions)
        rewards = payoff + NOISE * normal(streams, config.batch_size, 1)
        # 3. Advantages against the critic, whitened over the batch of each seed.
        advantages, returns = per_run(gae, gamma=1.0, gae_lambda=0.95)(rewards, old_values, response_mask)
        advantages = per_run(whiten)(advantages, response_mask)
        # 4. Several clipped steps on the batch.
        for _ in range(config.epochs):
            logprobs = logprobs_from_logits(actor(contexts), actions.squeeze(-1)).unsqueeze(-1)
            policy_loss, _ = per_run(clipped_policy_loss, clip_range=config.clip_range)(
                logprobs, old_logprobs, advantages, response_mask
            )
            value_loss, _ = per_run(clipped_value_loss, value_clip_range=config.value_clip_range)(
                critic(contexts), old_values, returns, response_mask
            )
            optimizer.zero_grad()
            (policy_loss + config.vf_coef * value_loss).sum().backward()
            optimizer.step()
        schedule.step()
        history.append(rewards.mean((1, 2)))
        explained.append(1 - (rewards - old_values).var((1, 2)) / rewards.var((1, 2)))
    return Trained(worlds=worlds, actor=actor, rewards=torch.stack(history), explained=torch.stack(explained))


@dataclass(frozen=True, kw_only=True)
class Test:
    """Expected reward of three policies on the same fresh contexts: [S, contexts] each."""

    random: Tensor
    ppo: Tensor
    optimal: Tensor

    @property
    def gap_closed(self) -> Tensor:
        """(PPO - random) / (optimal - random) of each seed, [S]; 1 is optimal."""
        random, ppo, optimal = self.random.mean(-1), self.ppo.mean(-1), self.optimal.mean(-1)
        return (ppo - random) / (optimal - random)


def test(config: ContextualConfig, trained: Trained) -> Test:
    """The trained actor's most likely action against uniform and against the best one, free of noise."""
    streams = generators(config.seed + 2**32, config.seeds)  # contexts that training has not drawn
    contexts = normal(streams, TEST_CONTEXTS, CONTEXT)
    payoffs = contexts @ trained.worlds  # [S, contexts, A]
    with torch.no_grad():
        chosen = trained.actor(contexts).argmax(-1, keepdim=True)
    random = (ACTIONS * uniform(streams, TEST_CONTEXTS, 1)).long()
    return Test(
        random=payoffs.gather(-1, random).squeeze(-1),
        ppo=payoffs.gather(-1, chosen).squeeze(-1),
        optimal=payoffs.amax(-1),
    )
