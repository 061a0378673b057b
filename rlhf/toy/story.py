"""A run of the dynamics toy in words: when the KL reached its band, when it left it, and what drove it out."""

from dataclasses import dataclass
from statistics import fmean, pstdev

from rlhf.toy.config import DynamicsConfig

BAND = (0.5, 1.5)  # the band around the target, as multiples of it
WINDOW = 10  # updates that count as "lately"


@dataclass(frozen=True, kw_only=True)
class RunTrace:
    """One run, a number per update; see `rlhf.toy.forces.Traces` for what each is."""

    kl: list[float]
    update_kl: list[float]
    push: list[float]
    pull: list[float]


def tell(config: DynamicsConfig, run: RunTrace) -> list[str]:
    """The events of a run as sentences, the verdict last."""
    low, high = (config.kl_target * factor for factor in BAND)
    sentences, inside, seen = [], False, False
    for step, kl in enumerate(run.kl):
        if low <= kl <= high and not inside:
            verb = "returned to" if seen else "reached"
            sentences.append(f"KL {verb} its band [{low:.3g}, {high:.3g}] at step {step}.")
            inside = seen = True
        elif not low <= kl <= high and inside:
            side = "above" if kl > high else "below"
            sentences.append(f"KL left its band at step {step}, {side} at {kl:.3f}, because {why(config, run, step)}.")
            inside = False
        elif kl > high and not seen:
            sentences.append(f"KL jumped over its band at step {step}, to {kl:.3f}, because {why(config, run, step)}.")
            seen = True
    return [*sentences, verdict(config, run)]


def why(config: DynamicsConfig, run: RunTrace, step: int) -> str:
    """What drove the KL out of its band at this step, told by the forces measured there."""
    lately = slice(max(0, step - WINDOW), step + 1)
    push, pull = fmean(run.push[lately]), fmean(run.pull[lately])
    spread = pstdev(run.push[lately])
    if run.update_kl[step] > config.kl_target / 2:
        multiple = run.update_kl[step] / config.kl_target
        return (
            f"this one update moved the policy by {run.update_kl[step]:.3f} nats, {multiple:.1f} times the target: "
            f"the steps are too large (lr {config.lr:g})"
        )
    if run.kl[step] > config.kl_target and push > 1.05 * pull > 0:
        pulled = f"the KL penalty's pull of {pull:.2f} (kl_coef {config.kl_coef:g})"
        return f"the reward pushed with {push:.2f} against {pulled}"
    return (
        f"batches of {config.batch_size} are noisy: the push was {push:.2f} ± {spread:.2f} lately, "
        f"the KL penalty's pull {pull:.2f}"
    )


def share_in_band(config: DynamicsConfig, run: RunTrace) -> float:
    """The share of the second half of the run that the KL spent in its band."""
    low, high = (config.kl_target * factor for factor in BAND)
    second_half = run.kl[len(run.kl) // 2 :]
    return sum(low <= kl <= high for kl in second_half) / len(second_half)


def verdict(config: DynamicsConfig, run: RunTrace) -> str:
    """One sentence on the second half of the run."""
    second_half = run.kl[len(run.kl) // 2 :]
    kl, share = fmean(second_half), share_in_band(config, run)
    if share >= 0.9:
        return f"Held: {share:.0%} of the second half in the band, KL {kl:.3f} on average."
    if max(run.kl) < BAND[0] * config.kl_target:
        moved = fmean(run.update_kl)
        return f"Never arrived: KL {run.kl[-1]:.3f} at the end, {moved:.1g} nats per update (lr {config.lr:g})."
    if kl > 2 * config.kl_target:
        return (
            f"Broke loose: KL {kl:.3f} on average over the second half, {kl / config.kl_target:.1f} times the target."
        )
    return f"Not held: {share:.0%} of the second half in the band, KL {kl:.3f} on average."
