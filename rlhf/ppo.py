"""The PPO stage: from a config to a trained policy on disk."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.checkpoint import save_policy
from rlhf.config import PPOConfig
from rlhf.config.checks import require
from rlhf.data import TokenizedExample, check_fits, load_examples, tokenize
from rlhf.models import context_length, load_causal_lm, load_tokenizer
from rlhf.optimization import Metrics
from rlhf.policy import Policy
from rlhf.progress import ProgressBar
from rlhf.rewards import RewardSum, Scores
from rlhf.rollout import Rollout
from rlhf.runs import as_plain, is_done, mark_done, open_run, staged
from rlhf.tracking import Tracker
from rlhf.trainer import PPOTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

POLICY_FOLDER = "policy"


def run_ppo(config: PPOConfig) -> Path:
    """Train a policy and write it; returns its folder.

    A finished run with the same config is not repeated; an interrupted one starts again.
    """
    rewards = RewardSum.from_specs(config.rewards)  # first: a misspelt reward must not cost a model load
    folder = open_run(config.output_dir, config)
    if is_done(folder):
        return folder / POLICY_FOLDER
    started = time.monotonic()
    trainer = build_trainer(config, rewards)
    with (
        Tracker(folder, "ppo", config.tracking, as_plain(config)) as tracker,
        ProgressBar("ppo", config.updates) as bar,
    ):
        for step in range(1, config.updates + 1):
            rollout, scores, metrics = trainer.update()
            tracker.log(metrics, step)
            tracker.log_samples(sample_rows(rollout, scores, config.tracking.samples), step)
            bar.advance(headline(metrics, trainer.warming_up))
    with staged(folder / POLICY_FOLDER) as staging:
        save_policy(trainer.policy, staging)
        trainer.tokenizer.save_pretrained(staging)
    mark_done(folder, time.monotonic() - started)
    return folder / POLICY_FOLDER


def build_trainer(config: PPOConfig, rewards: RewardSum) -> PPOTrainer:
    """Load data, tokenizer and model, and put the trainer together."""
    import transformers
    from accelerate import Accelerator

    accelerator = Accelerator()
    require(
        accelerator.num_processes == 1,
        f"PPO was launched on {accelerator.num_processes} processes; it runs on one so far: call rlhf directly",
    )
    transformers.set_seed(config.seed)  # before the adapters are drawn
    model = load_causal_lm(config.model)
    tokenizer = load_tokenizer(str(config.model.name_or_path))
    prompts = load_prompts(config, tokenizer, context_length(model))
    policy = Policy(model, config.lora, config.critic, config.model.gradient_checkpointing)
    return PPOTrainer(config, policy, tokenizer, rewards, prompts, accelerator)


def load_prompts(config: PPOConfig, tokenizer: "PreTrainedTokenizerFast", context: int) -> list[TokenizedExample]:
    """The training prompts, checked to leave room for a whole response."""
    examples = load_examples(config.data.train, config.data.train_split)
    prompts = tokenize(examples, tokenizer, config.data, context)
    check_fits(prompts, config.sampling.max_response_tokens, context)
    return prompts


def headline(metrics: Metrics, warming_up: bool) -> str:
    """What stands behind the progress bar."""
    phase = "critic warm-up, explained variance" if warming_up else "explained variance"
    explained = f"  {phase} {metrics['critic/explained_variance']:.2f}" if "critic/loss" in metrics else ""
    return (
        f"score {metrics['objective/score']:.3f}  KL {metrics['objective/kl']:.2f}  "
        f"length {metrics['response/length']:.0f}{explained}  {metrics['time/tokens_per_second']:.0f} tok/s"
    )


def sample_rows(rollout: Rollout, scores: Scores, n_rows: int) -> list[dict[str, Any]]:
    """The first responses of a rollout with everything that was said about them."""
    kl = (rollout.old_logprobs - rollout.ref_logprobs).sum(-1)
    return [
        {
            "prompt": rollout.examples[row].prompt,
            "response": rollout.texts[row],
            "score": float(rollout.scores[row]),
            **{f"reward/{name}": component[row] for name, component in scores.components.items()},
            "kl": float(kl[row]),
            "length": int(rollout.lengths[row]),
        }
        for row in range(min(n_rows, len(rollout)))
    ]
