"""Masked and running statistics, log-probabilities: tensors in, tensors out.

A mask is boolean and True where an entry counts. What lies outside it never matters, not even NaN or inf:
entries are selected with `torch.where`, never multiplied by zero. Half-precision inputs are accumulated in float32.
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Widen half-precision floats, integers and booleans to float32; leave float32 and float64 as they are."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def zero_outside(x: Tensor, mask: Tensor) -> Tensor:
    """x where mask is True, 0 elsewhere; neither the value nor the gradient of a masked entry survives."""
    return torch.where(mask, x, torch.zeros((), dtype=x.dtype, device=x.device))


def masked_sum(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Sum of the entries of x [...] where mask [...] is True."""
    selected = zero_outside(at_least_float32(x), mask)
    return selected.sum() if dim is None else selected.sum(dim)


def masked_mean(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Mean of the entries of x [...] where mask [...] is True; 0 where the mask is empty."""
    count = mask.sum() if dim is None else mask.sum(dim)
    return masked_sum(x, mask, dim) / count.clamp(min=1)


def masked_moments(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of x over the mask.

    mean = sum(x) / n, variance = sum((x - mean)^2) / n, in two passes so that a large mean costs no digits.
    """
    count = mask.sum().to(at_least_float32(x).dtype).clamp(min=1)
    mean = masked_sum(x, mask) / count
    variance = masked_sum((at_least_float32(x) - mean) ** 2, mask) / count
    return mean, variance


def whiten(x: Tensor, mask: Tensor) -> Tensor:
    """(x - mean) / sqrt(variance + 1e-8) over the mask, 0 outside it."""
    mean, variance = masked_moments(x, mask)
    return zero_outside((at_least_float32(x) - mean) * torch.rsqrt(variance + 1e-8), mask)


def scale_to_unit_variance(x: Tensor, mask: Tensor) -> Tensor:
    """x rescaled about its mean to unit variance: whiten(x) + mean, 0 outside the mask.

    The variant that reward whitening uses, where the sign of a reward should survive.
    """
    mean, variance = masked_moments(x, mask)
    return zero_outside((at_least_float32(x) - mean) * torch.rsqrt(variance + 1e-8) + mean, mask)


@dataclass
class RunningMoments:
    """Mean and variance of everything seen so far, for normalizing scores across batches.

    Batches are merged by the parallel update of Chan, Golub and LeVeque (1979), which equals one pass over all the
    data. Plain floats, so that `state_dict` goes into a JSON checkpoint and comes back without losing a bit.
    """

    count: float = 0.0
    mean: float = 0.0
    variance: float = 1.0

    def update(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Take in the entries of x [...] where mask [...] is True (all of them by default)."""
        mask = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
        n = float(mask.sum())
        if n == 0:
            return
        mean, variance = (float(moment) for moment in masked_moments(x.cpu().double(), mask.cpu()))
        total, shift = self.count + n, mean - self.mean
        between = shift**2 * self.count * n / total
        self.variance = (self.variance * self.count + variance * n + between) / total
        self.mean += shift * n / total
        self.count = total

    def normalize(self, x: Tensor) -> Tensor:
        """(x - mean) / sqrt(variance + 1e-8) with the moments so far; any shape."""
        return self.scale(at_least_float32(x) - self.mean)

    def scale(self, x: Tensor) -> Tensor:
        """x / sqrt(variance + 1e-8): the spread is normalized, the sign stays; any shape. Without a spread x itself."""
        if self.variance <= 1e-12 * max(1.0, self.mean**2):
            return at_least_float32(x)
        return at_least_float32(x) / (self.variance + 1e-8) ** 0.5

    def state_dict(self) -> dict[str, float]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.count, self.mean, self.variance = state["count"], state["mean"], state["variance"]


def logprobs_from_logits(logits: Tensor, token_ids: Tensor) -> Tensor:
    """log softmax(logits)[token] without keeping the softmax.

    logits [..., V], token_ids [...] -> logprobs [...], float32 or wider:
    log p(a) = logits_a - logsumexp(logits).
    """
    logits = at_least_float32(logits)
    chosen = logits.gather(-1, token_ids.unsqueeze(-1)).squeeze(-1)
    return chosen - logits.logsumexp(-1)


def entropy_from_logits(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) in nats: logits [..., V] -> [...].

    H = logsumexp(logits) - sum_a p(a) logits_a.  A logit of -inf means probability 0 and adds nothing.
    """
    logits = at_least_float32(logits)
    probabilities = logits.softmax(-1)
    # Selected before the product: the gradient of 0 * -inf would be NaN even behind a `where`.
    finite = torch.where(probabilities > 0, logits, 0.0)
    return logits.logsumexp(-1) - (probabilities * finite).sum(-1)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns) over the mask: 1 is a perfect critic, 0 no better than a constant."""
    _, residual = masked_moments(at_least_float32(returns) - at_least_float32(values), mask)
    _, total = masked_moments(returns, mask)
    return 1 - residual / total.clamp(min=1e-8)
