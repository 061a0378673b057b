"""Prompt and response lengths against the context, and whether responses come to an end."""

import statistics

from rlhf.config import PPOConfig
from rlhf.data.examples import TokenizedExample
from rlhf.doctor.check import Check, ok, warning
from rlhf.doctor.trial import Trial
from rlhf.models.shape import context_length, in_tokens
from rlhf.ppo.trainer import PPOTrainer

MANY = 0.5
"""Share of responses cut off beyond which most of the score is about where the cut falls."""


def check_length_budget(config: PPOConfig, trainer: PPOTrainer, prompts: list[TokenizedExample]) -> Check:
    """The longest prompt and a whole response fit into the context. (Where they do not, loading has failed.)

    An episode may have fewer turns than its environment allows: it ends where it is full.
    """
    name, limit = "length budget", config.response_limit
    longest = max(len(prompt.prompt_ids) for prompt in prompts)
    if trainer.episodes is None:
        context, what = context_length(trainer.policy.language_model), f"response {limit}"
    else:
        context = trainer.episodes.limit
        what = f"{trainer.episodes.spec.max_turns} turns of {config.sampling.max_new_tokens}"
    found = f"longest prompt {longest} + {what} = {longest + limit} of {in_tokens(context)} tokens"
    if trainer.episodes is None or longest + limit <= context:
        return ok(name, found)
    found += "; long episodes end early (as full), and what the environment says takes room too"
    return warning(name, found, "lower sampling.max_new_tokens or environment.max_turns, or take a longer context")


def check_responses_end(trial: Trial) -> Check:
    """Responses end by themselves before they are cut off."""
    name, responses = "responses end", trial.responses
    limit = trial.config.sampling.max_new_tokens
    n, n_ended = len(responses), int(responses.has_eos.sum())
    mean = float(responses.lengths.float().mean())
    found = f"{n_ended} of {n} end by themselves, the rest is cut off at {limit} tokens; {mean:.0f} on average"
    if n - n_ended <= MANY * n:
        return ok(name, found)
    typical = typical_completion(trial.prompts)
    if typical is not None and typical > limit:
        found += f"; the data's own completions have {typical} (median)"
    elif n_ended == 0:
        fix = "the model does not know when to stop: fine-tune it first (rlhf sft ends every completion with EOS)"
        return warning(name, found, f"{fix}, or name a stop string in sampling.stop")
    return warning(name, found, "raise sampling.max_new_tokens, or set missing_eos_penalty to teach an end")


def typical_completion(prompts: list[TokenizedExample]) -> int | None:
    """Tokens of the median completion in the data, EOS included; None where there are none."""
    lengths = [len(prompt.completion_ids) for prompt in prompts if prompt.completion_ids]
    return statistics.median_high(lengths) if lengths else None
