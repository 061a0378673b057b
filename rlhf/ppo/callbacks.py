"""Hooks into an update, for those who want to watch it or to change the algorithm."""

from typing import TYPE_CHECKING

from rlhf.rewards import Scores

if TYPE_CHECKING:
    from rlhf.ppo.rollout import Rollout
    from rlhf.ppo.trainer import PPOTrainer, Update
    from rlhf.sampling.responses import Responses


class Callback:
    """Methods that are called after each phase of an update; override those you need.

    Whatever a method returns, unless None, takes the place of what it was given. On several processes `after_sampling`
    gets this rank's responses, the others the whole batch; they must decide alike on all of them.
    """

    def after_sampling(self, trainer: "PPOTrainer", responses: "Responses") -> "Responses | None":
        """Responses are there (`rollout_batch_size` of them), nobody has judged them yet."""

    def after_scoring(self, trainer: "PPOTrainer", responses: "Responses", scores: Scores) -> Scores | None:
        """The rewards have spoken; nothing is normalized or clipped yet."""

    def after_advantages(self, trainer: "PPOTrainer", rollout: "Rollout") -> "Rollout | None":
        """Credit is assigned; the policy has not moved yet."""

    def after_update(self, trainer: "PPOTrainer", update: "Update") -> None:
        """The clipped epochs are over."""
