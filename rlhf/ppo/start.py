"""What has to hold when a run begins, looked at on its own first update; the doctor looks closer, before."""

import math
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rlhf.config.checks import require
from rlhf.data.chat import closing_text, closing_token
from rlhf.data.examples import TokenizedExample
from rlhf.data.prompts import ShuffledPasses
from rlhf.maths.tensors import masked_mean
from rlhf.policy.policy import Policy
from rlhf.ppo.rollout import Rollout
from rlhf.ppo.trainer import Callback, PPOTrainer, Update

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

KL_LIMIT = 1e-3
"""Nats per response between a policy that has not been trained and its reference."""
SAMPLER_LIMIT = {True: 1e-3, False: 0.15}
"""Nats per token, on average, between the sampler and the policy: where both compute in float32, and elsewhere. 0.045
were measured on a model of 30 layers in bfloat16."""
RATIO_LIMIT = {True: 1e-3, False: 0.05}
"""Between the mean ratio of the first minibatch and 1, likewise."""
OTHER_TOKENIZER = "use the tokenizer that belongs to the model, or resize the model's embeddings and train them"


class StartChecks(Callback):
    """Raises UserError, in one line, where the first update of a run shows that the run would be wasted.

    Costs a few sums over numbers that the update has computed anyway; nothing has been trained yet when it looks at
    the rollout.
    """

    def after_advantages(self, trainer: PPOTrainer, rollout: Rollout) -> None:
        if trainer.updates_done > 0:
            return
        mask, in_float32 = rollout.response_mask, computes_in_float32(trainer)
        for name in ("old_logprobs", "ref_logprobs", "old_values"):
            finite = bool(getattr(rollout, name)[mask].isfinite().all())
            require(finite, f"{name} of the first rollout are not all finite; the weights of the model are damaged")
        say_tokens_without_text(trainer, rollout)
        kl = float((rollout.old_logprobs - rollout.ref_logprobs).sum(-1).abs().max())
        require(
            kl <= KL_LIMIT,
            f"before any update the policy is {kl:.2g} nats per response from its reference (limit {KL_LIMIT:g}): "
            "adapters that are not zero, or another model as reference; rlhf doctor says more",
        )
        if rollout.sampler_logprobs is not None:
            apart = float(masked_mean((rollout.old_logprobs - rollout.sampler_logprobs).abs(), mask))
            limit = SAMPLER_LIMIT[in_float32]
            require(
                apart <= limit,
                f"sampler and policy differ by {apart:.2g} nats per token (limit {limit:g}): the decode loop does not "
                "work with this model (rlhf doctor says more), or a vLLM server runs without --logprobs-mode "
                "processed_logprobs",
            )

    def after_update(self, trainer: PPOTrainer, update: Update) -> None:
        ratio = update.metrics.get("policy/ratio_first_minibatch", 1.0)
        limit = RATIO_LIMIT[computes_in_float32(trainer)]
        require(
            trainer.updates_done > 1 or (abs(ratio - 1) <= limit and math.isfinite(ratio)),
            f"the first ratio is {ratio:.4f}, not 1 (limit {limit:g} apart): the same policy gives other probabilities "
            "in the update than in the rollout; look for dropout, or layers that differ in train mode",
        )


def say_tokens_without_text(trainer: PPOTrainer, rollout: Rollout) -> None:
    """Say, in one line, if ids were sampled that only the padding of the model's vocabulary has."""
    known = 1 + max(trainer.tokenizer.get_vocab().values())
    sampled = [token for ids in rollout.all_response_ids() for token in ids]
    n = sum(token >= known for token in sampled)
    if n and trainer.ranks.is_first:
        rows = embedding_rows(trainer.policy)
        print(
            f"warning: {n} of {len(sampled)} tokens sampled have no text: the model knows {rows} tokens, its tokenizer "
            f"{known}; fine-tune it first, so that it does not say them",
            file=sys.stderr,
        )


def computes_in_float32(trainer: PPOTrainer) -> bool:
    """Whether neither the policy nor its sampler rounds to 16 bits or less."""
    return trainer.config.model.dtype == "float32" and trainer.vllm is None


def check_tokens(trainer: PPOTrainer) -> None:
    """Raise UserError for a token without a row in the embeddings; say, in one line, if nothing closes an answer."""
    prompts = trainer.prompts.prompts if isinstance(trainer.prompts, ShuffledPasses) else []
    tokenizer, rows = trainer.tokenizer, embedding_rows(trainer.policy)
    largest = largest_token(tokenizer, prompts)
    require(largest < rows, f"token id {largest} is used, but the model has only {rows}; {OTHER_TOKENIZER}")
    if closing_token(tokenizer) is None and trainer.ranks.is_first:
        print("warning: {}; {}".format(*open_end(tokenizer)), file=sys.stderr)


def largest_token(tokenizer: "PreTrainedTokenizerFast", prompts: Iterable[TokenizedExample]) -> int:
    """The largest id among the tokens of the prompts, padding and EOS."""
    largest = (max(prompt.prompt_ids, default=0) for prompt in prompts)  # an environment may begin without data
    return max(tokenizer.pad_token_id, tokenizer.eos_token_id, *largest)


def embedding_rows(policy: Policy) -> int:
    """Tokens that the model has an embedding for."""
    return len(policy.language_model.get_input_embeddings().weight)


def open_end(tokenizer: "PreTrainedTokenizerFast") -> tuple[str, str]:
    """What is found, and what to do, where no token closes an answer in the chat template."""
    text = closing_text(tokenizer)
    closing = f"with {text!r}" if text else "with nothing"
    return (
        f"the chat template ends an answer {closing}, not with EOS {tokenizer.eos_token!r}",
        "a model tuned on this template will not end its responses: set the tokenizer's eos_token to what the template "
        "writes, or name it in sampling.stop",
    )
