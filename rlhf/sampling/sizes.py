"""How much of a run is in memory at once: rows that are decoded together, tokens of a row."""

from torch import Tensor

from rlhf.config import PPOConfig
from rlhf.models.shape import context_length
from rlhf.parallel.ranks import Ranks
from rlhf.policy.policy import Policy
from rlhf.sampling.memory import ONE_PROCESS, choose_copies

GRADIENT_AND_MOMENTS = 3


def choose_copies_for(config: PPOConfig, policy: Policy, prompt_tokens: int, ranks: Ranks = ONE_PROCESS) -> None:
    """`choose_copies` for a run that has not taken a step; prompt_tokens is the length of the longest prompt."""
    n_tokens = longest_row(config, prompt_tokens, context_length(policy.language_model))
    to_come = GRADIENT_AND_MOMENTS * sum(parameter.nbytes for parameter in trained(config, policy))
    setting, n_rows = config.sampling.merge_adapters, rows_decoded(config)
    choose_copies(policy, setting, n_rows, n_tokens, to_come, ranks)


def rows_decoded(config: PPOConfig) -> int:
    """Responses that a process decodes at once with the loop of this package, at the most.

    Of the training batch (unless vLLM decodes it), of the evaluation, and of what is inspected, which is not divided.
    """
    share = per_process(config, config.batch_size)
    batch = min(share, config.rollout_batch_size or share)
    rows = [batch if config.generation.engine == "transformers" else 0, config.inspect.prompts * config.num_generations]
    if config.evaluation is not None:
        asked = (config.evaluation.prompts or batch) * config.evaluation.num_generations
        rows.append(min(per_process(config, asked), config.rollout_batch_size or share))
    return max(rows)


def longest_row(config: PPOConfig, prompt_tokens: int, context: int) -> int:
    """Tokens of the longest prompt with the longest response, through all turns but without an environment's words."""
    limit = config.environment.max_tokens if config.environment is not None else None
    return min(limit or context, context, prompt_tokens + config.response_limit)


def trained(config: PPOConfig, policy: Policy) -> list[Tensor]:
    """Parameters that get a gradient: a critic that no advantage asks gets none."""
    return [*policy.policy_parameters(), *(policy.critic_parameters() if config.uses_critic else [])]


def per_process(config: PPOConfig, rows: int) -> int:
    """The largest share of a batch, on the number of processes that the config asks for."""
    return -(-rows // (config.num_processes or 1))
