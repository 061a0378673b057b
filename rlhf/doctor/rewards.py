"""The scores of sixteen responses, and how long they take."""

import math
import statistics
import time
from collections.abc import Iterator

from rlhf.doctor.check import Check, failure, ok, warning
from rlhf.doctor.trial import Trial
from rlhf.rewards import RewardError, Scores

NO_SPREAD = 1e-6


def check_rewards(trial: Trial) -> Iterator[Check]:
    """Each component, their sum, and the time; stops at the first reward that fails."""
    started = time.perf_counter()
    try:
        scores = trial.trainer.score(trial.responses)
    except RewardError as error:
        yield failure("rewards", str(error), "fix the reward; `rlhf score` runs it on a file of completions")
        return
    seconds = time.perf_counter() - started
    for reward in trial.trainer.reward_fn.rewards:
        yield check_component(reward.name, reward.weight, scores)
    yield check_total(scores)
    yield check_speed(trial, seconds / len(trial.responses))


def check_component(name: str, weight: float, scores: Scores) -> Check:
    """One reward tells responses apart."""
    title, given = f"reward {name}", scores.components[name]
    values = [value for value in given if value is not None]
    if not values:
        fix = "None means that a reward does not apply: give it the columns it needs, or take it out"
        return warning(title, f"None for all {len(given)} responses", fix)
    found = f"weight {weight:g}: {spread(values)}"
    if len(values) < len(given):
        found += f", None for {len(given) - len(values)} of {len(given)}"
    if statistics.pstdev(values) > NO_SPREAD * max(1.0, abs(values[0])):
        return ok(title, found)
    return warning(title, found, "all responses earn the same; see with `rlhf score` whether better ones would not")


def check_total(scores: Scores) -> Check:
    """The sum, spans included, tells responses apart: without that there is nothing to learn."""
    name = "rewards in all"
    totals = [total + spans for total, spans in zip(scores.total, scores.span_total, strict=True)]
    if statistics.pstdev(totals) > NO_SPREAD * max(1.0, abs(totals[0])):
        return ok(name, spread(totals))
    return failure(
        name,
        f"{spread(totals)}: no signal",
        "PPO learns from differences: use a reward that tells these responses apart, a higher sampling.temperature, or "
        "a model that sometimes succeeds",
    )


def check_speed(trial: Trial, seconds: float) -> Check:
    """Scoring is not what the run waits for."""
    config, name = trial.config, "reward time"
    n_batches = math.ceil(config.num_updates / config.reuse_batch)
    total = seconds * config.batch_size * n_batches
    found = (
        f"{seconds * 1e3:.3g} ms per response, {duration(total)} for {n_batches} batches of "
        f"{config.batch_size}; sampling takes {trial.seconds_per_response * 1e3:.3g} ms"
    )
    if seconds <= trial.seconds_per_response:
        return ok(name, found)
    return warning(name, found, "the run waits for the rewards: make them faster, or score several at a time in them")


def spread(values: list[float]) -> str:
    """Range and standard deviation in words."""
    deviation = statistics.pstdev(values)
    return f"{min(values):.3g} to {max(values):.3g}, mean {statistics.fmean(values):.3g}, std {deviation:.2g}"


def duration(seconds: float) -> str:
    """A time in readable units."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2g} seconds"
