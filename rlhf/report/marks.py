"""Warnings of the run's watch as marks on the curves: which update, and which curves it is about."""

from dataclasses import dataclass

from rlhf.report.compare import Group
from rlhf.report.load import Row, Run

# Of a warning of rlhf.watch the metrics that went wrong, which may be fewer than those it reads.
ABOUT = {
    "kl_blow_up": ("objective/kl",),
    "negative_kl": ("objective/kl",),
    "entropy_collapse": ("objective/entropy",),
    "critic_blind": ("critic/explained_variance",),
    "clip_fraction_high": ("policy/clip_fraction",),
    "standstill": ("objective/kl", "policy/approx_kl", "policy/clip_fraction"),
    "length_at_limit": ("response/length", "response/eos_rate"),
    "length_collapse": ("response/length",),
    "no_signal": ("objective/score", "objective/score_std"),
}
REWARD_HACKING, NOT_FINITE = "reward_hacking", "not_finite"


@dataclass(frozen=True)
class Mark:
    """A warning at an update.

    Attributes:
        step: The update at which it was raised.
        label: What it is called, with the run where there are several.
        line: The group of the run.
        metrics: The curves that it is about.
    """

    step: int
    label: str
    line: str
    metrics: tuple[str, ...]

    def plain(self) -> dict[str, object]:
        """For JSON."""
        return {"x": self.step, "label": self.label, "line": self.line}


def marks(groups: list[Group], gold: str | None) -> list[Mark]:
    """All warnings of the runs; reward hacking is about the score and the gold reward."""
    about = ABOUT | {REWARD_HACKING: ("objective/score", *([gold] if gold else []))}
    about[NOT_FINITE] = ("objective/score", "objective/kl", "objective/entropy")
    return [
        Mark(row["step"], label_of(groups, group, run, row), group.label, metrics)
        for group in groups
        for run in group.runs
        for row in run.warnings or []
        if (metrics := about.get(str(row["name"])))
    ]


def label_of(groups: list[Group], group: Group, run: Run, row: Row) -> str:
    """What a warning is called, with the run where there are several."""
    several = sum(len(group.runs) for group in groups) > 1
    return f"{title(row['name'])} ({group.name_of(run)})" if several else title(row["name"])


def title(name: str) -> str:
    """What a warning is called: `kl_blow_up` is `KL blow up`."""
    return " ".join("KL" if word == "kl" else word for word in str(name).split("_"))
