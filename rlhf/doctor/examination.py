"""All checks, in an order in which each can rely on the ones before it."""

from collections.abc import Iterator

from rlhf.config import PPOConfig
from rlhf.doctor import lengths, memory, numerics, rewards, tokens, update
from rlhf.doctor.check import Check, failure
from rlhf.doctor.trial import build_trial_trainer, run_trial, training_prompts
from rlhf.environments.returns import reward_fn
from rlhf.errors import EpisodeError, UserError
from rlhf.rewards import RewardError, RewardSum, WeightedReward


def examine(config: PPOConfig) -> Iterator[Check]:
    """All findings about a run before it begins; ends early where later checks would make no sense.

    Nothing is written, and no weight is changed for longer than a check takes.
    """
    try:
        reward_sum = reward_fn(config.rewards, config.environment)
    except (RewardError, EpisodeError) as error:
        yield failure("rewards", str(error), "fix the entry in rewards or environment")
        reward_sum = None
    try:
        too_large = memory.check_weights_fit(config)
        if too_large:
            yield too_large
            return
        trainer = build_trial_trainer(config, reward_sum or RewardSum([WeightedReward("none", no_reward)]))
    except UserError as error:
        yield failure("model and data", str(error), "")
        return

    prompts = training_prompts(trainer)
    yield tokens.check_padding_token(trainer.tokenizer)
    vocabulary = tokens.check_vocabulary(trainer, prompts)
    yield vocabulary
    yield tokens.check_end_of_turn(trainer.tokenizer)
    yield lengths.check_length_budget(config, trainer, prompts)
    yield memory.check_memory(config, trainer.policy, max(len(prompt.prompt_ids) for prompt in prompts))
    if vocabulary.verdict == "failure":
        return

    trial = run_trial(config, trainer)
    yield lengths.check_responses_end(trial)
    yield numerics.check_padding_invariance(trial)
    yield numerics.check_decoding(trial)
    yield numerics.check_sampled_distribution(trial)
    yield numerics.check_kl_at_start(trial)
    yield from numerics.check_reference(trial)
    if reward_sum is None:
        return
    said = list(rewards.check_rewards(trial))
    yield from said
    if not any(check.name == "rewards" for check in said):
        yield from update.check_update(trial)


def no_reward(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    """Stands in for rewards that cannot be loaded, so that everything else can be examined."""
    return [0.0] * len(prompts)
