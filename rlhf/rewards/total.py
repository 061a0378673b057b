"""The weighted sum of several rewards, with every component checked and kept on its own."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf.config.rewards import RewardSpec
from rlhf.errors import RewardError
from rlhf.rewards.batch import Batch
from rlhf.rewards.contract import Span, TrainerState
from rlhf.rewards.explanation import explanation
from rlhf.rewards.loading import load_reward
from rlhf.rewards.logged import Logged
from rlhf.rewards.numbers import LARGEST
from rlhf.rewards.scores import Scores, WeightedReward

Columns = Mapping[str, Sequence[Any]]


class RewardSum:
    """`total = sum over components of weight * clipped score`, each component called once per batch."""

    def __init__(self, rewards: Sequence[WeightedReward]) -> None:
        """Raises `RewardError` if there are no rewards or two have the same name."""
        if not rewards:
            raise RewardError("no rewards are given")
        names = [reward.name for reward in rewards]
        for name in names:
            if names.count(name) > 1:
                raise RewardError(f"two rewards are called {name!r}: set 'name' for one of them")
        self.rewards = tuple(rewards)

    @classmethod
    def from_specs(cls, specs: Sequence[RewardSpec]) -> "RewardSum":
        """The sum that a config describes; see `load_reward` for what it raises."""
        return cls(
            [WeightedReward(s.metric_name, load_reward(s), s.weight, timeout=s.timeout, clip=s.clip) for s in specs]
        )

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        columns: Columns,
        *,
        completion_ids: Sequence[list[int]] | None = None,
        state: TrainerState | None = None,
    ) -> Scores:
        """Score a batch, see `rlhf.rewards.contract`; without a state, as at the end of a training.

        Raises `RewardError` if a component raises, takes longer than its time-out, needs a column that is not there,
        or returns anything but one finite number, `None` or valid `SpanReward` per sample; ValueError if the inputs
        differ in length.
        """
        tokens = {} if completion_ids is None else {"completion_ids": completion_ids}
        per_sample = {"prompts": prompts, "completions": completions, **columns, **tokens}
        for name, column in per_sample.items():
            if len(column) != len(prompts):
                raise ValueError(f"{len(prompts)} prompts but {len(column)} {name}")
        names = [reward.name for reward in self.rewards]
        scores = Scores([0.0] * len(prompts), {name: [] for name in names}, [[] for _ in prompts], Logged())
        for reward in self.rewards if prompts else ():
            batch = Batch(reward, per_sample, state or TrainerState())
            items = batch.items()
            scores.logged.add(reward.name, batch.logged, len(prompts))
            scores.components[reward.name] = [item.score if item else None for item in items]
            for i, item in enumerate(items):
                if item is not None:
                    scores.total[i] += reward.weight * reward.clipped(item.score)
                    if not abs(scores.total[i]) <= LARGEST:
                        raise RewardError(f"the sum up to reward {reward.name!r} is {scores.total[i]:g} in sample {i}")
                    scores.spans[i] += [Span(s.start, s.end, reward.weight * s.value) for s in item.spans]
        return scores

    def explain(self, prompt: Any, completion: Any, columns: Mapping[str, Any]) -> str:
        """One paragraph per component: score, weight and, where the reward can say it, the reason."""
        scores = self([prompt], [completion], {name: [value] for name, value in columns.items()})
        return explanation(self.rewards, scores, 0, prompt, completion, columns)
