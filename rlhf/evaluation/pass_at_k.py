"""pass@k: the probability that at least one of k responses to a prompt passes (Chen et al. 2021, arXiv 2107.03374)."""

import math
from collections.abc import Sequence
from statistics import fmean

from rlhf.config.evaluation import PassConfig, pass_counts


def pass_at_k(n: int, passed: int, k: int) -> float:
    """The unbiased estimate `1 - C(n - passed, k) / C(n, k)` from n responses, k <= n; Chen et al., equation 1.

    1 - (1 - passed / n)^k would be too low: it draws with replacement.
    """
    return 1.0 - math.comb(n - passed, k) / math.comb(n, k)


def pass_rates(scores: Sequence[float | None], num_generations: int, passing: PassConfig) -> dict[str, float]:
    """pass@1, pass@2, pass@4, ..., pass@num_generations, each a mean over prompts.

    Args:
        scores: Those of the deciding reward, num_generations in a row for each prompt. A prompt to all of whose
            responses the reward does not apply (None) is left out; beside other scores None is no pass.
        num_generations: Responses per prompt.
        passing: The threshold.
    """
    groups = [scores[start : start + num_generations] for start in range(0, len(scores), num_generations)]
    passed = [
        sum(score is not None and score >= passing.threshold for score in group)
        for group in groups
        if any(score is not None for score in group)
    ]
    return {
        f"pass@{k}": fmean(pass_at_k(num_generations, count, k) for count in passed)
        for k in pass_counts(num_generations)
        if passed
    }
