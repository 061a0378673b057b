"""Signs of trouble in the metrics of a PPO run, each with the sentence that says what to change.

The thresholds lie far from what healthy runs of 32 updates did (the model of configs/from_scratch.yaml, four
rewards, three seeds, averaged as below): KL at most 5.6 nats per response, clip fraction at most 0.04, entropy at least
0.77 and length at least 0.88 of the start, explained variance at least 0.22.
"""

import statistics
from collections.abc import Callable, Iterable
from typing import NamedTuple

from rlhf.watch.history import PATIENCE, WINDOW, History

KL_LIMIT, KL_PER_TOKEN = 50.0, 0.5
KL_TARGET_FACTOR = 3.0
KL_GROWTH = 3.0

NEGATIVE_KL = -0.2
"""Nats per response. The k1 estimate over samples of the policy itself has a mean of at least 0; with a true KL of k it
scatters by about sqrt(2k / B): five updates of eight responses average below this once in 30 000 times."""

ENTROPY_SHARE = 0.3
EXPLAINED_VARIANCE = 0.1
CLIP_FRACTION = 0.3
STANDSTILL = {"policy/clip_fraction": 1e-3, "policy/approx_kl": 1e-6, "objective/kl": 0.01}
LENGTH_SHARE = 0.5
WAY_TO_THE_LIMIT = 0.75
SCORE_STD = 1e-6

SCORE, KL, ENTROPY, LENGTH = "objective/score", "objective/kl", "objective/entropy", "response/length"


class Limits(NamedTuple):
    """What the config says about where trouble begins."""

    kl_limit: float | None
    adaptive_kl_target: float | None
    max_new_tokens: int
    of_episodes: bool = False


Finder = Callable[[History, Limits], str | None]


class Symptom(NamedTuple):
    """A sign of trouble: the metrics it reads, how many values of each it needs, and what it says if it is there."""

    needs: Iterable[str]
    updates: int
    find: Finder


def kl_blow_up(history: History, limits: Limits) -> str | None:
    """Too far above the target; without one, above the limit or, from a quarter of it, threefold in one window."""
    kl = history[KL]
    seen = f"the KL to the reference is {kl.now:.1f} nats per response (mean of {WINDOW} updates)"
    if limits.adaptive_kl_target is not None:
        if kl.now <= KL_TARGET_FACTOR * limits.adaptive_kl_target:
            return None
        return (
            f"{seen}, more than {KL_TARGET_FACTOR:g} times adaptive_kl_target {limits.adaptive_kl_target:g}: kl_coef "
            "does not keep up. Lower learning_rate, raise kl_coef, which it starts from, or lower adaptive_kl_horizon "
            "so that it reacts faster"
        )
    limit = limits.kl_limit or min(KL_LIMIT, KL_PER_TOKEN * history[LENGTH].start)
    if kl.now > limit:
        found = f"{seen}, above the limit of {limit:.0f} (watch.kl_limit)"
    elif kl.now > limit / 4 and kl.now > KL_GROWTH * kl.before:
        found = f"{seen} after {kl.before:.1f} in the {WINDOW} before, on its way to {limit:.0f} (watch.kl_limit)"
    else:
        return None
    return (
        f"{found}: the policy is leaving the reference. Raise kl_coef, lower learning_rate, or set adaptive_kl_target"
    )


def negative_kl(history: History, limits: Limits) -> str | None:
    """A KL that no samples of the policy itself can have."""
    kl = history[KL]
    if kl.now >= NEGATIVE_KL or max(kl.latest[-WINDOW:]) >= 0:
        return None
    return (
        f"the KL to the reference is {kl.now:.2f} nats per response, negative {WINDOW} updates running; over samples "
        f"of the policy it cannot stay below 0 (limit {NEGATIVE_KL:g}): responses come from another distribution than "
        "the one that is scored. Sample with sampling.temperature and top_p 1, without other logits processors"
    )


def entropy_collapse(history: History, limits: Limits) -> str | None:
    """The policy has become nearly deterministic, measured by what it was."""
    entropy = history[ENTROPY]
    if entropy.now >= ENTROPY_SHARE * entropy.start:
        return None
    return (
        f"the entropy is {entropy.now:.3f} nats per token and was {entropy.start:.3f} at the start, less than "
        f"{ENTROPY_SHARE:.0%} of it is left: the policy hardly tries anything new. Raise entropy_coef or kl_coef, or "
        "lower learning_rate"
    )


def critic_blind(history: History, limits: Limits) -> str | None:
    """The critic still does not predict the returns."""
    explained = statistics.median(history["critic/explained_variance"].latest)
    if explained >= EXPLAINED_VARIANCE:
        return None
    return (
        f"the critic explains {explained:.2f} of the variance of the returns (median of {PATIENCE} updates), below "
        f"{EXPLAINED_VARIANCE:g}: the advantages are mostly noise. Raise critic_learning_rate or "
        "value_warmup.max_updates, or do without it: advantage: rloo"
    )


def clip_fraction_high(history: History, limits: Limits) -> str | None:
    """Steps so large that much of each batch is clipped away."""
    clipped = history["policy/clip_fraction"].now
    if clipped <= CLIP_FRACTION:
        return None
    return (
        f"{clipped:.0%} of the tokens are clipped (mean of {WINDOW} updates), more than {CLIP_FRACTION:.0%}: the "
        "policy moves too far on one rollout. Lower learning_rate or num_ppo_epochs"
    )


def standstill(history: History, limits: Limits) -> str | None:
    """The policy is still the reference after all these updates."""
    largest = {name: max(map(abs, history[name].latest)) for name in STANDSTILL}
    if any(largest[name] >= limit for name, limit in STANDSTILL.items()):
        return None
    return (
        f"the policy stands still: in {PATIENCE} updates the KL to the reference came to {largest[KL]:.1g} nats, "
        f"approx_kl to {largest['policy/approx_kl']:.1g} (limits {STANDSTILL[KL]:g} and "
        f"{STANDSTILL['policy/approx_kl']:g}). Raise learning_rate"
    )


def length_at_limit(history: History, limits: Limits) -> str | None:
    """Responses have grown most of the way to where they are cut off."""
    length, limit = history[LENGTH], limits.max_new_tokens
    if length.now < length.start + WAY_TO_THE_LIMIT * (limit - length.start) or length.start > WAY_TO_THE_LIMIT * limit:
        return None
    setting = "environment.max_turns x sampling.max_new_tokens," if limits.of_episodes else "sampling.max_new_tokens"
    return (
        f"responses have {length.now:.0f} tokens and had {length.start:.0f} at the start; they are cut off at "
        f"{setting} {limit}, and {history['response/eos_rate'].now:.0%} end by themselves. Raise "
        "missing_eos_penalty, or the limit if long responses are wanted; see whether a reward pays for length"
    )


def length_collapse(history: History, limits: Limits) -> str | None:
    """Responses have become much shorter."""
    length = history[LENGTH]
    if length.now >= LENGTH_SHARE * length.start:
        return None
    return (
        f"responses have {length.now:.1f} tokens and had {length.start:.1f} at the start, less than {LENGTH_SHARE:.0%} "
        "of it: short ones are paid too well. Add a reward for what is missing (length with a minimum), or lower "
        "kl_coef, whose penalty grows with every token"
    )


def no_signal(history: History, limits: Limits) -> str | None:
    """All responses earn the same."""
    score, spread = history[SCORE].now, max(history["objective/score_std"].latest[-WINDOW:])
    if spread > SCORE_STD * max(1.0, abs(score)):
        return None
    return (
        f"all responses of an update score the same ({score:.3g}, standard deviation {spread:.1g}, {WINDOW} updates "
        "running): there is nothing to learn from. Look at samples.jsonl: either everything is solved, or the rewards "
        "do not tell these responses apart; then change rewards or raise sampling.temperature"
    )


SYMPTOMS = {
    "kl_blow_up": Symptom([KL, LENGTH], WINDOW, kl_blow_up),
    "negative_kl": Symptom([KL], WINDOW, negative_kl),
    "entropy_collapse": Symptom([ENTROPY], WINDOW, entropy_collapse),
    # Without a critic there is no critic/loss, and the explained variance means nothing.
    "critic_blind": Symptom(["critic/explained_variance", "critic/loss"], PATIENCE, critic_blind),
    "clip_fraction_high": Symptom(["policy/clip_fraction"], WINDOW, clip_fraction_high),
    "standstill": Symptom(STANDSTILL, PATIENCE, standstill),
    "length_at_limit": Symptom([LENGTH, "response/eos_rate"], WINDOW, length_at_limit),
    "length_collapse": Symptom([LENGTH], WINDOW, length_collapse),
    "no_signal": Symptom([SCORE, "objective/score_std"], WINDOW, no_signal),
}
METRICS = sorted({metric for symptom in SYMPTOMS.values() for metric in symptom.needs})
