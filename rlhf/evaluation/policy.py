"""What PPO measures on held-out prompts while it trains: sampling, scores, KL, of all ranks together."""

from pathlib import Path

from rlhf.config import SamplingConfig
from rlhf.data.examples import TokenizedExample
from rlhf.evaluation.best import Means
from rlhf.evaluation.held_out import HeldOut
from rlhf.evaluation.measure import GREEDY, Numbers, column_of, greedily, greedy_means, means_of, repeat, sample
from rlhf.policy.sharding import in_step
from rlhf.policy.whole import whole_on_first
from rlhf.ppo.state import write_policy
from rlhf.ppo.trainer import RANK_SEED_STRIDE, PPOTrainer
from rlhf.rewards import Scores

BEST_FOLDER = "policy-best"


def held_out_policy(trainer: PPOTrainer, prompts: list[TokenizedExample], folder: Path) -> HeldOut:
    """What measures a policy on these prompts, as its `config.evaluation` says; the best one lands in policy-best/.

    Every evaluation draws the same random numbers, so that what differs is the policy. The ranks share the prompts.
    """

    def write(staging: Path) -> None:
        write_policy(staging, trainer, folder)
        held_out.describe(staging)

    held_out = HeldOut(
        trainer.config.evaluation,
        "update",
        trainer.ranks,
        lambda: measure_policy(trainer, prompts[trainer.ranks.share(len(prompts))]),
        write,
        folder / BEST_FOLDER,
        lambda: whole_on_first(trainer.policy),
    )
    return held_out


def measure_policy(trainer: PPOTrainer, prompts: list[TokenizedExample]) -> Means:
    """Means over the responses to the prompts of all ranks, under the names that the metrics have in training.

    Args:
        trainer: Has the policy, and the settings.
        prompts: Those of this rank.
    """
    settings, sampling = trainer.config.evaluation, trainer.config.sampling
    assert settings is not None
    numbers, scores = _sampled(trainer, prompts, sampling, settings.num_generations)
    means = means_of(numbers, scores, settings.num_generations, settings.pass_at_k)
    if settings.greedy:
        means |= greedy_means(*_sampled(trainer, prompts, greedily(sampling), 1))
    names = {"reward": "score"} | {column_of(name): f"reward/{name}" for name in scores[0].components}
    names |= {f"{GREEDY}{name}": f"{GREEDY}{ours}" for name, ours in names.items()}
    return {names.get(name, name): value for name, value in means.items()}


def _sampled(
    trainer: PPOTrainer, prompts: list[TokenizedExample], sampling: SamplingConfig, num_generations: int
) -> tuple[list[Numbers], list[Scores]]:
    """What is averaged of every response of all ranks, in the order of the prompts."""
    config, ranks = trainer.config, trainer.ranks
    assert config.evaluation is not None
    batches = sample(
        trainer.policy,
        trainer.tokenizer,
        repeat(prompts, num_generations),
        trainer.reward_fn,
        sampling,
        batch_size=config.rollout_batch_size or config.batch_size // ranks.count,
        micro_batch_size=config.micro_batch_size,
        seed=config.evaluation.seed + RANK_SEED_STRIDE * ranks.index,
        episodes=trainer.episodes,
    )

    def measured() -> list[tuple[list[Numbers], Scores]]:
        with in_step(trainer.policy):
            return [(batch.numbers, batch.scores) for batch in batches]

    shares = ranks.exchange(measured)
    gathered = [batch for share in shares for batch in share]
    return [row for numbers, _ in gathered for row in numbers], [scores for _, scores in gathered]
