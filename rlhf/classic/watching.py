"""What `step` warns of: steps that were skipped, and what `rlhf.watch` finds, in the words of the classic loop."""

from collections.abc import Iterator
from typing import Any

from rlhf.ppo.update import Metrics
from rlhf.watch.symptoms import Limits
from rlhf.watch.watch import Watch

IN_THEIR_WORDS = {
    " (watch.kl_limit)": "",
    "or set adaptive_kl_target": "or set adap_kl_ctrl and target",
    "adaptive_kl_target": "target",
    "adaptive_kl_horizon": "horizon",
    "Raise critic_learning_rate or value_warmup.max_updates, or do without it: advantage: rloo": "Raise vf_coef, or "
    "give PPOTrainer an optimizer with a larger lr for v_head",
    "Raise entropy_coef or kl_coef": "Raise init_kl_coef",
    "kl_coef": "init_kl_coef",
    "num_ppo_epochs": "ppo_epochs",
    "Sample with sampling.temperature and top_p 1": "Pass generate the temperature of PPOConfig, do_sample=True, "
    "top_k=0 and top_p=1.0",
    "sampling.max_new_tokens": "the model's context length",
    "Raise missing_eos_penalty, or the limit if long responses are wanted": "Lower the score of a response without EOS",
    "Look at samples.jsonl": "Look at the responses",
    "sampling.temperature": "temperature",
}
"""What the messages of `rlhf.watch` say, and what stands for it here; one after the other."""


def troubles(watch: Watch, kl_ctl: Any, step: int, metrics: Metrics) -> Iterator[str]:
    """A line for each, where there are any; the KL is held against the target of the controller as it is now."""
    skipped, taken = int(metrics["policy/skipped_steps"]), int(metrics["policy/steps"])
    if skipped:
        yield (
            f"update {step}: {skipped} of {skipped + taken} optimizer steps were skipped, since the loss or its "
            "gradient was not finite (ppo/skipped_steps); lower learning_rate, and look at the scores"
        )
    watch.limits = Limits(watch.limits.kl_limit, getattr(kl_ctl, "target", None), watch.limits.max_new_tokens)
    for finding in watch.check(step, metrics):
        yield in_their_words(finding.message)


def in_their_words(message: str) -> str:
    """The message with the settings of the classic loop."""
    for ours, theirs in IN_THEIR_WORDS.items():
        message = message.replace(ours, theirs)
    return message
