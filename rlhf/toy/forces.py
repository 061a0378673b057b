"""Three forces on one small policy: the reward pushes, the KL penalty pulls, and the batch shakes.

A linear policy picks one of two actions from five random numbers. Action 1 pays uniformly in [0.4, 1), action 0 in
[-0.5, 0.2). The loss is the clipped policy loss plus kl_coef * |KL - target|, the KL exact and against the frozen
policy of the start. (Measured instead against the policy of the same batch before its first step, as a one-step loop
would, the KL is 0 with gradient 0, and the penalty never does anything.)
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from rlhf.maths.kl import kl_from_logits, target_kl_penalty
from rlhf.maths.losses import clipped_policy_loss
from rlhf.maths.tensors import logprobs_from_logits, masked_mean, masked_moments, whiten
from rlhf.toy.config import DynamicsConfig
from rlhf.toy.seeds import choose, generators, normal, per_run, uniform

OBSERVATION, ACTIONS = 5, 2
LOWEST, WIDTH = torch.tensor([-0.5, 0.4]), torch.tensor([0.7, 0.6])  # of each action's uniform reward
PROBE = 256  # observations on which the KL is measured
BEST_REWARD = 0.7  # expected, of always choosing action 1


@dataclass(frozen=True, kw_only=True)
class Traces:
    """What was measured at every update: [updates, settings, seeds] each."""

    reward: Tensor  # mean of the batch
    expected_reward: Tensor  # of the policy after the update, over fixed observations
    reward_variance: Tensor  # within the batch
    kl: Tensor  # KL(policy || reference) in nats after the update, over fixed observations
    update_kl: Tensor  # KL(policy after || policy before the update)
    push: Tensor  # force of the policy loss along the gradient of the KL; positive drives the policy away
    pull: Tensor  # force of the KL penalty against it; positive draws the policy back
    clip_fraction: Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch of every run, [runs, batch, ...]; runs are settings x seeds."""

    observations: Tensor
    actions: Tensor
    old_logprobs: Tensor
    rewards: Tensor
    advantages: Tensor


class Runs:
    """Every setting with every seed side by side; a small batch is a large one with a mask.

    The settings may differ in batch_size, kl_target, kl_coef, clip_range and lr. A seed sees the same world under all.
    """

    def __init__(self, settings: Sequence[DynamicsConfig]) -> None:
        self.settings, self.seeds = len(settings), settings[0].seeds
        self.streams = generators(settings[0].seed, self.seeds)
        self.largest = max(s.batch_size for s in settings)
        sizes = self._spread([s.batch_size for s in settings])
        self.mask = (torch.arange(self.largest) < sizes.unsqueeze(-1)).unsqueeze(-1)  # [runs, batch, 1]
        self.targets = self._spread([s.kl_target for s in settings])
        self.kl_coefs = self._spread([s.kl_coef for s in settings])
        self.clip_ranges = self._spread([s.clip_range for s in settings])
        start = (2 * uniform(self.streams, OBSERVATION + 1, ACTIONS) - 1) / OBSERVATION**0.5
        self.reference = self._shared(start)
        self.weights = [start.clone().requires_grad_() for _ in settings]
        # Fixed observations, so that the KL that is reported is the policy's and not the batch's.
        self.probe = self._observations(PROBE)

    def _spread(self, values: Sequence[float]) -> Tensor:
        """One number per setting -> one per run."""
        return torch.tensor(values).repeat_interleave(self.seeds)

    def _shared(self, draw: Tensor) -> Tensor:
        """Draws [seeds, ...] -> [runs, ...]."""
        return draw.repeat(self.settings, *[1] * (draw.dim() - 1))

    def _observations(self, n: int) -> Tensor:
        """[runs, n, OBSERVATION + 1]; the last input is the bias."""
        drawn = normal(self.streams, n, OBSERVATION)
        return self._shared(torch.cat([drawn, torch.ones(self.seeds, n, 1)], -1))

    def logits(self, observations: Tensor) -> Tensor:
        """Of the policies now, [runs, n, ACTIONS]."""
        return observations @ torch.cat(self.weights)

    @torch.no_grad()
    def sample(self) -> Batch:
        """Steps 1 to 3: act, score, and compare with the batch, which is its own baseline."""
        observations = self._observations(self.largest)
        logits = self.logits(observations)
        actions = choose(logits.softmax(-1), self._shared(uniform(self.streams, self.largest, 1)))  # [runs, batch, 1]
        old_logprobs = logprobs_from_logits(logits.unsqueeze(2), actions)
        rewards = LOWEST[actions] + WIDTH[actions] * self._shared(uniform(self.streams, self.largest, 1))
        return Batch(
            observations=observations, actions=actions, old_logprobs=old_logprobs, rewards=rewards,
            advantages=per_run(whiten)(rewards, self.mask),
        )  # fmt: skip

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Step 4: policy loss, KL penalty, KL to the reference and clip fraction, [runs] each."""
        logits = self.logits(batch.observations)
        logprobs = logprobs_from_logits(logits.unsqueeze(2), batch.actions)
        loss, stats = per_run(clipped_policy_loss)(
            logprobs, batch.old_logprobs, batch.advantages, self.mask, self.clip_ranges
        )
        token_kl = kl_from_logits(logits, batch.observations @ self.reference)
        kl = per_run(masked_mean)(token_kl, self.mask.squeeze(-1))
        return loss, self.kl_coefs * target_kl_penalty(kl, self.targets), kl, stats["clip_fraction"]


def train(settings: Sequence[DynamicsConfig]) -> Traces:
    """Train every setting with every seed, all in one batch."""
    runs, config = Runs(settings), settings[0]
    optimizer = torch.optim.Adam([{"params": [w], "lr": s.lr} for w, s in zip(runs.weights, settings, strict=True)])
    traces: dict[str, list[Tensor]] = {field.name: [] for field in fields(Traces)}
    for _ in range(config.updates):
        before = runs.logits(runs.probe).detach()
        batch = runs.sample()
        for _ in range(config.epochs):
            loss, penalty, kl, clip_fraction = runs.losses(batch)
            optimizer.zero_grad()
            (loss + penalty).sum().backward(retain_graph=True)
            push, pull = _forces(loss, penalty, kl, runs.weights)
            optimizer.step()
        after = runs.logits(runs.probe).detach()
        reward, variance = per_run(masked_moments)(batch.rewards, runs.mask)
        measured = {
            "reward": reward,
            "reward_variance": variance,
            "expected_reward": (after.softmax(-1) @ (LOWEST + WIDTH / 2)).mean(-1),
            "kl": kl_from_logits(after, runs.probe @ runs.reference).mean(-1),
            "update_kl": kl_from_logits(after, before).mean(-1),
            "push": push,  # the forces and the clip are those of the last epoch
            "pull": pull,
            "clip_fraction": clip_fraction,
        }
        for name, value in measured.items():
            traces[name].append(value.view(len(settings), config.seeds))
    return Traces(**{name: torch.stack(rows) for name, rows in traces.items()})


def _forces(loss: Tensor, penalty: Tensor, kl: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    """How hard the loss pushes along the gradient of the KL, and how hard the penalty pulls against it; [runs] each."""

    def gradient(of: Tensor) -> Tensor:
        return torch.cat(torch.autograd.grad(of.sum(), weights, retain_graph=True)).flatten(1)

    outwards = torch.nn.functional.normalize(gradient(kl), dim=-1)
    return -(gradient(loss) * outwards).sum(-1), (gradient(penalty) * outwards).sum(-1)
