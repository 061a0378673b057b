"""Held-out measurement: while a stage trains, and what a sampled evaluation can count besides means."""

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.config.checks import require, require_finite, require_not_negative, require_positive
from rlhf.config.common import SamplingConfig
from rlhf.config.data import DataConfig

EARLY_STOPPING = "early_stopping"
"""What warnings.jsonl calls the end of a run whose patience is over."""
LOWER_IS_BETTER = ("loss",)
"""Of all other metrics the highest is the best."""


@dataclass(frozen=True, kw_only=True)
class PassConfig:
    """When a response passes, for pass@k: the share of prompts that at least one of k responses solves.

    Args:
        reward: Name of the reward that decides; null where there is only one.
        threshold: The response passes if that reward is at least this.
    """

    reward: str | None = None
    threshold: float = 1.0

    def __post_init__(self) -> None:
        require_finite(self)


@dataclass(frozen=True, kw_only=True)
class TrainingEvaluation:
    """What held-out measurement during training has in common for all stages.

    Args:
        every: Steps between two evaluations: updates of PPO, optimizer steps of the other stages. There is one before
            the first step and one after the last, too.
        metric: What decides which model is the best.
        keep_best: Store the best model so far beside the last one, in policy-best/ (PPO) or model-best/.
        patience: End the run after this many evaluations in a row without a new best; null never does.
    """

    every: int = 10
    metric: str
    keep_best: bool = True
    patience: int | None = None

    def __post_init__(self) -> None:
        require_finite(self)
        require_positive(self, "every", "patience")

    def require_metric(self, possible: Sequence[str], where: str = "") -> None:
        """Raise UserError unless the metric is one of these; `where` is the section."""
        known = ", ".join(possible)
        require(self.metric in possible, f"{where}metric is {self.metric!r}; it must be one of: {known}")


@dataclass(frozen=True, kw_only=True)
class PolicyEvaluation(TrainingEvaluation):
    """Responses to held-out prompts, sampled and scored as in training, every time with the same random numbers.

    Args:
        metric: Decides which policy is the best, the highest being best: score (the weighted sum), reward/NAME, pass@K
            with pass_at_k, and with greedy each of greedy/score and greedy/reward/NAME.
        prompts: How many, from the start of data.eval; null takes all.
        num_generations: Responses per prompt.
        pass_at_k: Report pass@1 to pass@num_generations, too.
        greedy: Decode one response to each prompt greedily, too.
        seed: Of the sampling.
    """

    metric: str = "score"
    prompts: int | None = 64
    num_generations: int = 1
    pass_at_k: PassConfig | None = None
    greedy: bool = False
    seed: int = 1234

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative(self, "seed")
        require_positive(self, "prompts", "num_generations")

    def require_measurable(self, names: Sequence[str]) -> None:
        """Raise UserError unless rewards of these names yield the metric, and pass@k where it is asked for."""
        require_passable(self.pass_at_k, self.num_generations, names, "evaluation.")
        scores = ["score", *(f"reward/{name}" for name in names)]
        passing = [f"pass@{k}" for k in pass_counts(self.num_generations)] if self.pass_at_k else []
        greedy = [f"greedy/{name}" for name in scores if self.greedy]
        self.require_metric([*scores, *passing, *greedy], "evaluation.")


@dataclass(frozen=True, kw_only=True)
class SFTEvaluation(TrainingEvaluation):
    """Loss and token accuracy of the held-out rows of data.eval.

    Args:
        metric: Decides which model is the best: the lowest loss, or the highest token_accuracy.
        rows: How many, from the start of data.eval; null takes all.
    """

    metric: str = "loss"
    rows: int | None = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "rows")
        self.require_metric(("loss", "token_accuracy"))


@dataclass(frozen=True, kw_only=True)
class RewardModelEvaluation(TrainingEvaluation):
    """Accuracy, loss and margin of the held-out pairs of data.eval.

    Args:
        metric: Decides which model is the best: the highest accuracy or margin, or the lowest loss.
        rows: How many pairs, from the start of data.eval; null takes all.
    """

    metric: str = "accuracy"
    rows: int | None = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "rows")
        self.require_metric(("accuracy", "loss", "margin"))


def require_held_out_data(data: DataConfig) -> None:
    """Raise UserError where there is nothing to measure on."""
    require(
        data.eval is not None,
        "evaluation is set, but data.eval is not; name a file, a folder or a hub dataset of held-out rows",
    )


def require_varied(num_generations: int, sampling: SamplingConfig) -> None:
    """Raise UserError for several responses to a prompt that would all be the same."""
    require(
        num_generations == 1 or sampling.temperature > 0,
        f"num_generations is {num_generations}, but with sampling.temperature 0 all responses to a prompt are "
        "the same: make num_generations 1, or the temperature positive",
    )


def require_passable(passing: PassConfig | None, num_generations: int, rewards: Sequence[str], where: str = "") -> None:
    """Raise UserError unless pass@k can be told from this many responses and these rewards; `where` is the section."""
    if passing is None:
        return
    require(
        num_generations > 1,
        f"{where}pass_at_k is set, but {where}num_generations is {num_generations}; it needs at least 2",
    )
    known = ", ".join(rewards)
    require(
        passing.reward is not None or len(rewards) == 1,
        f"{where}pass_at_k.reward is not set; it must be one of the rewards: {known}",
    )
    require(
        passing.reward is None or passing.reward in rewards,
        f"{where}pass_at_k.reward is {passing.reward!r}; it must be one of the rewards: {known}",
    )


def pass_counts(num_generations: int) -> list[int]:
    """The k of pass@k: powers of two, and the number of responses itself."""
    powers = [1 << bit for bit in range(num_generations.bit_length())]
    return sorted({*powers, num_generations})
