"""How far the policy has moved: KL per token, exact or estimated, and the penalties built on it.

Papers: k1/k2/k3 (Schulman 2020, joschu.net/blog/kl-approx.html), adaptive KL (Ziegler et al. 2019, arXiv:1909.08593).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.maths.tensors import at_least_float32

ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "k1": lambda d: d,
    "k2": lambda d: d**2 / 2,
    "k3": lambda d: torch.expm1(-d) + d,
    "abs": torch.abs,
}
"""From d = log pi - log pi_ref, for a token that the policy sampled, to an estimate of the KL."""


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, estimator: str = "k1") -> Tensor:
    """Per-token estimate of KL(policy || reference) from tokens sampled by the policy; same shape as the inputs.

    With d = log pi - log pi_ref:  k1 = d,  k2 = d^2 / 2,  k3 = exp(-d) - 1 + d,  abs = |d|.
    k1 and k3 are unbiased, k2 and k3 never negative. In a *loss* only k2 has the gradient of the KL in
    expectation (that of k1 is 0); in the reward, where no gradient flows, any of them will do.
    Raises ValueError for an unknown estimator. Source: Schulman 2020.
    """
    d = at_least_float32(logprobs) - at_least_float32(ref_logprobs)
    if estimator not in ESTIMATORS:
        raise ValueError(f"kl estimator is {estimator!r}; it must be one of {', '.join(ESTIMATORS)}")
    return ESTIMATORS[estimator](d)


def kl_from_logits(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """Exact KL(policy || reference) in nats over the whole vocabulary: [..., V], [..., V] -> [...].

    KL = sum_a p(a) (log p(a) - log q(a)),  p = softmax(logits), q = softmax(ref_logits). An action with p = 0 adds
    nothing, one with q = 0 < p makes it inf. Costs V times the memory of `kl_estimate`, and has no variance; its
    gradient is the KL's own, so it may stand in a loss.
    """
    logprobs = at_least_float32(logits).log_softmax(-1)
    ref_logprobs = at_least_float32(ref_logits).log_softmax(-1)
    probabilities = logprobs.exp()
    d = torch.where(probabilities > 0, logprobs - ref_logprobs, 0.0)
    return (probabilities * d).sum(-1)


def target_kl_penalty(kl: Tensor, target: float | Tensor) -> Tensor:
    """|kl - target|, a loss that pulls the KL to the target from either side; any shape, in nats.

    Below the target it pays to move away from the reference, above it to come back. At kl = 0 the KL has no
    gradient, so the pull starts only once something else has moved the policy.
    """
    return (at_least_float32(kl) - target).abs()


@dataclass
class FixedKLController:
    """A KL coefficient that never changes."""

    kl_coef: float

    def update(self, kl: float, n_steps: int) -> None:
        """Ignore the measured KL."""

    def state_dict(self) -> dict[str, float]:
        return {"kl_coef": self.kl_coef}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.kl_coef = state["kl_coef"]


@dataclass
class AdaptiveKLController(FixedKLController):
    """A KL coefficient steered so that the measured KL per sequence comes to `target`.

    kl_coef *= 1 + clip(kl / target - 1, -0.2, 0.2) * n_steps / horizon, with n_steps sequences seen since the last
    update. Source: Ziegler et al. 2019, section 2.2.
    """

    target: float
    horizon: float

    def update(self, kl: float, n_steps: int) -> None:
        """Move the coefficient after `n_steps` sequences whose mean KL (summed over tokens, nats) was `kl`.

        Raises ValueError where so many could make it negative.
        """
        if n_steps >= 5 * self.horizon:
            raise ValueError(
                f"horizon is {self.horizon:g}; for updates of {n_steps} sequences make it at least {n_steps}"
            )
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        self.kl_coef *= 1 + error * n_steps / self.horizon


def kl_controller(kl_coef: float, target: float | None, horizon: float) -> FixedKLController:
    """Adaptive where there is a target to steer to, else fixed."""
    return FixedKLController(kl_coef) if target is None else AdaptiveKLController(kl_coef, target, horizon)
