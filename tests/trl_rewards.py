"""Rewards for tests, written as for TRL's GRPOTrainer."""

import asyncio


def keeps_count(prompts, completions, completion_ids, trainer_state, log_extra, log_metric, **kwargs):
    """Tokens of each completion; logs everything there is to log."""
    lengths = [len(ids) for ids in completion_ids]
    log_extra("first_token", [ids[0] for ids in completion_ids])
    log_extra("verdict", [f"{length} tokens at step {trainer_state.global_step}" for length in lengths])
    log_metric("progress", trainer_state.global_step / trainer_state.max_steps)
    return [float(length) for length in lengths]


async def says_nothing(completions, **kwargs):
    await asyncio.sleep(0)
    return [None] * len(completions)


def named_only(completions):
    """Takes nothing but what it names."""
    return [1.0 if isinstance(completion, list) and completion[0]["role"] == "assistant" else 0.0
            for completion in completions]  # fmt: skip


def of_the_turns(prompts, completions, **kwargs):
    """Turns of the prompt and characters of the answer."""
    return [10.0 * len(prompt) + len(said[0]["content"]) for prompt, said in zip(prompts, completions, strict=True)]
