"""A run that watches itself: reads the metrics of each update and reports, once, what goes wrong and what to change."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from rlhf.config import WatchConfig
from rlhf.watch.hacking import CERTAINTY, HackingDetector
from rlhf.watch.history import Series
from rlhf.watch.symptoms import ENTROPY, KL, METRICS, SCORE, SYMPTOMS, Limits

REWARD_HACKING, NOT_FINITE = "reward_hacking", "not_finite"


class Finding(NamedTuple):
    """Something that goes wrong: its name, and a sentence that says what to change."""

    name: str
    message: str


class Watch:
    """Reads the metrics of every update and reports each kind of trouble once.

    The kinds are those of `rlhf.watch.symptoms`, score, KL or entropy that is not finite, and reward hacking as
    `HackingDetector` defines it. Updates of the critic's warm-up are left out, and to all but the second kind a value
    that is not finite counts as absent.

    Args:
        config: What is the user's to decide.
        adaptive_kl_target: Nats per response that kl_coef is steered to; None where it is fixed.
        max_new_tokens: Where responses are cut off.
        of_episodes: Whether that is over all turns of an environment.
    """

    def __init__(
        self, config: WatchConfig, adaptive_kl_target: float | None, max_new_tokens: int, of_episodes: bool = False
    ) -> None:
        self.config = config
        self.limits = Limits(config.kl_limit, adaptive_kl_target, max_new_tokens, of_episodes)
        self.history: dict[str, Series] = {}
        self.hacking = HackingDetector()
        self.reported: list[str] = []

    @property
    def stop(self) -> bool:
        """Whether the run should end: the policy is hacking its reward, and the config asks to stop then."""
        return self.config.stop_on_hacking and REWARD_HACKING in self.reported

    def check(self, step: int, metrics: Mapping[str, float]) -> list[Finding]:
        """What the metrics of update `step` show for the first time."""
        if metrics.get("policy/warmup"):
            return []
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        for name in METRICS:
            if name in finite:
                self.history.setdefault(name, Series()).add(finite[name])
        messages = not_finite(metrics) | self._symptoms() | self._hacking(finite)
        new = [Finding(name, f"update {step}: {text}") for name, text in messages.items() if name not in self.reported]
        self.reported += [finding.name for finding in new]
        return new

    def _symptoms(self) -> dict[str, str]:
        """Name and message of every symptom that shows now."""
        found = {
            name: symptom.find(self.history, self.limits)
            for name, symptom in SYMPTOMS.items()
            if all(metric in self.history and self.history[metric].n >= symptom.updates for metric in symptom.needs)
        }
        return {name: message for name, message in found.items() if message}

    def _hacking(self, metrics: Mapping[str, float]) -> dict[str, str]:
        gold = f"reward/{self.config.gold}"
        if SCORE not in metrics or gold not in metrics:
            return {}
        seen = self.hacking.add(metrics[SCORE], metrics[gold])
        if seen is None or not seen.is_hacking:
            return {}
        message = (
            f"since {gold} was at its best it fell by {seen.gold_fall:.3g} and the score rose by {seen.score_rise:.3g} "
            f"(noise: {seen.gold_error:.2g} and {seen.score_error:.2g}, limit {CERTAINTY:g} times that): the policy "
            "exploits the rewards it is trained on. Use the policy from before, raise kl_coef, or fix the rewards"
        )
        return {REWARD_HACKING: message}

    def state_dict(self) -> dict[str, Any]:
        """Everything that later findings depend on, as plain JSON values."""
        return {
            "history": {name: asdict(series) for name, series in self.history.items()},
            "hacking": self.hacking.state_dict(),
            "reported": list(self.reported),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.history = {name: Series(**series) for name, series in state["history"].items()}
        self.hacking.load_state_dict(state["hacking"])
        self.reported = list(state["reported"])


def not_finite(metrics: Mapping[str, float]) -> dict[str, str]:
    """Score, KL or entropy of an update that is infinite or no number: the run itself goes on."""
    broken = [f"{name} is {metrics[name]}" for name in (SCORE, KL, ENTROPY) if not math.isfinite(metrics.get(name, 0))]
    if not broken:
        return {}
    message = (
        f"{' and '.join(broken)}: a reward, the policy or the reference has given what is no finite number. Look at "
        "samples.jsonl; go back to an earlier checkpoint, with a lower learning_rate, or fix the rewards"
    )
    return {NOT_FINITE: message}
