"""A few fixed prompts followed through a run, every token of their responses stored for the report."""

import copy
from pathlib import Path
from typing import Any

import torch

from rlhf.data.prompts import ShuffledPasses
from rlhf.environments.episodes import respond
from rlhf.ppo.credit import assign_credit, final_scores
from rlhf.ppo.rollout import Rollout
from rlhf.ppo.rollout_files import save_rollout
from rlhf.ppo.stopwatch import Stopwatch
from rlhf.ppo.trainer import PPOTrainer
from rlhf.rewards import Scores, reward_inputs
from rlhf.rewards.explanation import explanation
from rlhf.rewards.inputs import columns_of


class Inspection:
    """Samples responses to the same prompts before some of the updates, and looks at them again afterwards.

    Nothing is learned from them and no random number of the training is used up; every time the same random numbers
    are drawn, so that what differs between two updates is the policy. The first rank alone does it: a reward that is
    paid for is asked once.

    Args:
        trainer: Whose policy is followed. The prompts are the first of its data set; one that makes its prompts on
            the fly is not followed.
        folder: Rollouts land in its folders 000001, 000010, ..., named by the update.
    """

    def __init__(self, trainer: PPOTrainer, folder: Path) -> None:
        source, config = trainer.prompts, trainer.config
        prompts = source.prompts[: config.inspect.prompts] if isinstance(source, ShuffledPasses) else []
        self.prompts = prompts if trainer.ranks.is_first else []
        self.trainer, self.folder = trainer, folder
        self.pending: tuple[int, Rollout, Scores] | None = None

    def before_update(self, step: int) -> None:
        """Sample and score, if this update is one to look at: the first, every `inspect.every`-th and the last."""
        config = self.trainer.config
        due = step in (1, config.num_updates) or step % config.inspect.every == 0
        if due and self.prompts:
            self.pending = (step, *self.roll_out())

    def after_update(self) -> list[dict[str, Any]]:
        """Store what was sampled, with the log-probabilities that the update gave it.

        Returns the responses with their rewards and what the rewards say for themselves; none where nothing was
        sampled, and on ranks other than the first.
        """
        if self.pending is None:
            return []
        (step, rollout, scores), self.pending = self.pending, None
        trainer = self.trainer
        new = trainer.forward(rollout, with_values=False, with_entropy=False)
        rewards = trainer.reward_fn.rewards
        prompts, completions, _ = reward_inputs(rollout.examples, rollout.texts, rollout.episodes)
        columns: list[dict[str, Any]] = [
            {
                "rewards": {name: component[row] for name, component in scores.components.items()},
                "extra": scores.extra(row),
                "explanation": explanation(
                    rewards,
                    scores,
                    row,
                    prompts[row],
                    completions[row],
                    columns_of(rollout, row),
                ),
            }
            for row, example in enumerate(rollout.examples)
        ]
        save_rollout(self.folder / f"{step:06d}", rollout, trainer.tokenizer, columns, new_logprobs=new.logprobs)
        rows = [
            {
                "prompt": example.prompt,
                "response": response,
                "score": score,
                **{f"reward/{name}": value for name, value in column["rewards"].items()},
                "explanation": column["explanation"],
            }
            for example, response, score, column in zip(
                rollout.examples, rollout.texts, rollout.scores.tolist(), columns, strict=True
            )
        ]
        return [scores.beside(row, fixed) for row, fixed in enumerate(rows)]

    def roll_out(self) -> tuple[Rollout, Scores]:
        """Responses of the policy as it is, with credit assigned as in training."""
        trainer, config = self.trainer, self.trainer.config
        generator = torch.Generator(device=trainer.policy.device).manual_seed(config.seed)
        prompts = trainer.seeded(self.prompts, "inspection")
        repeated = [prompt for prompt in prompts for _ in range(config.num_generations)]
        responses = respond(repeated, trainer.sampler(generator), trainer.tokenizer, trainer.episodes)
        experience = trainer.evaluate(responses, Stopwatch())
        component_scores = trainer.score(responses)
        scores = final_scores(config, component_scores, experience.has_eos, copy.copy(trainer.score_moments))
        kl_coef, new_critic = trainer.kl_controller.kl_coef, trainer.policy.new_critic and config.uses_critic
        rollout = assign_credit(config, experience, scores, component_scores, kl_coef, trainer.tokenizer, new_critic)
        return rollout, component_scores
