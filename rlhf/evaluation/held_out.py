"""PPO measured on held-out prompts while it trains, and its best policy kept."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

from rlhf.config import SamplingConfig
from rlhf.config.evaluation import EARLY_STOPPING
from rlhf.data.examples import TokenizedExample
from rlhf.evaluation.best import Best, Means
from rlhf.evaluation.measure import Numbers, column_of, greedily, greedy_means, means_of, repeat, sample
from rlhf.parallel.launch import said_once
from rlhf.ppo.state import write_policy
from rlhf.ppo.trainer import RANK_SEED_STRIDE, PPOTrainer
from rlhf.ppo.update import Metrics
from rlhf.report.model_card import add_held_out
from rlhf.rewards import Scores
from rlhf.runs.files import staged
from rlhf.runs.state_files import untouched_random_state
from rlhf.tracking.progress import ProgressBar
from rlhf.tracking.tracker import Tracker

BEST_FOLDER, RECORD_FILE = "policy-best", "held_out.json"


class HeldOut:
    """Measures the policy on held-out prompts: before the first update, every so many, and after the last.

    Nothing is learned from them and no random number of the training is used up: a run with evaluations trains bit for
    bit like one without. Every evaluation draws the same random numbers, so that what differs is the policy. The ranks
    share the prompts. All methods do nothing where `config.evaluation` is null.

    Args:
        trainer: Whose policy is measured, as its `config.evaluation` says.
        prompts: The held-out prompts.
        folder: The best policy so far is kept in its folder policy-best/.
    """

    def __init__(self, trainer: PPOTrainer, prompts: list[TokenizedExample], folder: Path) -> None:
        self.trainer, self.settings, self.folder = trainer, trainer.config.evaluation, folder
        self.prompts = prompts[trainer.ranks.share(len(prompts))]
        self.best = Best(self.settings, "update") if self.settings else None

    @property
    def stop(self) -> bool:
        """Whether the run should end because the policy has ceased to get better."""
        return self.best is not None and self.best.stop

    @property
    def found_best(self) -> bool:
        """Whether the policy as it is now is the best so far."""
        return self.best is not None and self.best.step == self.trainer.updates_done

    def before_training(self, tracker: Tracker, bar: ProgressBar) -> None:
        """Measure what the run begins with, as step 0; in one that goes on, store the best policy if a crash did not
        leave the time for it."""
        if self.trainer.updates_done == 0 and self.trainer.ranks.is_first:
            shutil.rmtree(self.folder / BEST_FOLDER, ignore_errors=True)  # of a start that came to nothing
        if self.best is not None and self.best.step is None:
            tracker.log(self.evaluate(tracker, bar), step=0)
        self.keep_best()

    def after_update(self, metrics: Metrics, is_last: bool, tracker: Tracker, bar: ProgressBar) -> Metrics:
        """What is measured after this update, if it is one to look at, to be logged with its metrics."""
        if self.settings is None or not (is_last or self.trainer.updates_done % self.settings.every == 0):
            return {}
        return self.evaluate(tracker, bar, counts=not metrics["policy/warmup"])

    def evaluate(self, tracker: Tracker, bar: ProgressBar, counts: bool = True) -> Metrics:
        """Measure the policy and say so; all ranks take part, and fail together.

        `counts` is False where the policy was not trained since the evaluation before.
        """
        assert self.best is not None
        started, step = time.monotonic(), self.trainer.updates_done
        with untouched_random_state():
            means = self.measure()
        seconds = time.monotonic() - started
        with said_once():
            bar.say(self.best.add(step, means, seconds, counts))
        if self.stop and step < self.trainer.config.num_updates:
            tracker.log_warning(EARLY_STOPPING, self.best.stopping(), step)
            bar.say(self.best.stopping())
        return {f"held_out/{name}": value for name, value in means.items()} | {"time/held_out": seconds}

    def measure(self) -> Means:
        """The means over the held-out prompts of all ranks, under the names that the metrics have in training."""
        assert self.settings is not None
        sampling, n = self.trainer.config.sampling, self.settings.num_generations
        numbers, scores = self._sampled(sampling, n)
        means = means_of(numbers, scores, n, self.settings.pass_at_k)
        if self.settings.greedy:
            means |= greedy_means(*self._sampled(greedily(sampling), 1))
        names = {"reward": "score"} | {column_of(name): f"reward/{name}" for name in scores[0].components}
        names |= {f"greedy/{name}": f"greedy/{ours}" for name, ours in names.items()}
        return {names.get(name, name): value for name, value in means.items()}

    def _sampled(self, sampling: SamplingConfig, num_generations: int) -> tuple[list[Numbers], list[Scores]]:
        """What is averaged of every response of all ranks, in the order of the prompts."""
        assert self.settings is not None
        trainer, config, ranks = self.trainer, self.trainer.config, self.trainer.ranks
        batches = sample(
            trainer.policy,
            trainer.tokenizer,
            repeat(self.prompts, num_generations),
            trainer.reward_fn,
            sampling,
            batch_size=config.rollout_batch_size or config.batch_size // ranks.count,
            micro_batch_size=config.micro_batch_size,
            seed=self.settings.seed + RANK_SEED_STRIDE * ranks.index,
        )
        shares = ranks.exchange(lambda: [(batch.numbers, batch.scores) for batch in batches])
        gathered = [batch for share in shares for batch in share]
        return [row for numbers, _ in gathered for row in numbers], [scores for _, scores in gathered]

    def keep_best(self) -> None:
        """Store the policy if it is the best so far; all ranks wait until it is there.

        Called once a checkpoint holds that it is, so that the two agree whenever a run is killed.
        """
        if self.settings is not None and self.settings.keep_best and self.found_best:
            self.trainer.ranks.first(self._write_best)

    def _write_best(self) -> None:
        assert self.best is not None
        with staged(self.folder / BEST_FOLDER) as staging:
            write_policy(staging, self.trainer, self.folder)
            (staging / RECORD_FILE).write_text(json.dumps(self.best.record(), indent=2) + "\n", encoding="utf-8")
            self.describe(staging)

    def describe(self, folder: Path) -> None:
        """Put the held-out means of the policy as it is now into its model card, beside those from before."""
        if self.best is not None:
            add_held_out(folder, self.best.first, self.best.last)

    def say_best(self) -> None:
        """Print which policy was the best, and where it is."""
        if self.best is not None and self.trainer.ranks.is_first:
            keeps = self.settings is not None and self.settings.keep_best
            place = f"; that policy is in {self.folder / BEST_FOLDER}" if keeps else ""
            print(f"{self.best.summary()}{place}", flush=True)

    def state_dict(self) -> dict[str, Any] | None:
        """What later evaluations are compared with; None where there are none."""
        return None if self.best is None else self.best.state_dict()

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Go on where `state_dict` was taken."""
        if self.best is not None and state is not None:
            self.best.load_state_dict(state)
