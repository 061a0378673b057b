"""PPO: sample, score, estimate advantages, update, report."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from rlhf.config import PPOConfig
from rlhf.data.examples import TokenizedExample, collate_columns
from rlhf.data.prompts import PromptSource, in_batches
from rlhf.maths.kl import AdaptiveKLController, FixedKLController
from rlhf.maths.tensors import RunningMoments, explained_variance
from rlhf.parallel.ranks import Ranks
from rlhf.policy.policy import Evaluation, Policy
from rlhf.policy.sharding import sharded
from rlhf.ppo.callbacks import Callback
from rlhf.ppo.credit import assign_credit, final_scores, with_values
from rlhf.ppo.metrics import rollout_metrics
from rlhf.ppo.rollout import Experience, Rollout, evaluate_responses
from rlhf.ppo.stopwatch import Stopwatch
from rlhf.ppo.update import ClippedEpochs, Metrics
from rlhf.rewards import RewardSum, Scores
from rlhf.rewards.calling import Background
from rlhf.sampling.responses import Responses, sample_responses
from rlhf.sampling.vllm import VLLMSampler

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedTokenizerFast

RANK_SEED_STRIDE = 1_000_003


class Update(NamedTuple):
    """What one round of PPO was about: the rollout of all ranks, what the rewards said, and the metrics."""

    rollout: Rollout
    scores: Scores
    metrics: Metrics


class PPOTrainer:
    """Proximal policy optimization of a language model (Schulman et al. 2017; Ziegler et al. 2019).

    Args:
        config: The stage's settings.
        policy: Policy, critic and reference.
        tokenizer: Decodes responses; its EOS ends them.
        rewards: The weighted sum of reward components.
        prompts: Where the next prompts come from.
        shuffler: Draws the minibatches (and may draw the prompts); the same on all ranks.
        accelerator: Runs the backward passes; knows the other processes.
        callbacks: Called after each phase.
    """

    def __init__(
        self,
        config: PPOConfig,
        policy: Policy,
        tokenizer: "PreTrainedTokenizerFast",
        rewards: RewardSum,
        prompts: PromptSource,
        shuffler: torch.Generator,
        accelerator: "Accelerator",
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.config, self.policy, self.tokenizer, self.rewards = config, policy, tokenizer, rewards
        self.prompts, self.shuffler, self.callbacks = prompts, shuffler, callbacks
        self.ranks = Ranks.of(accelerator)
        self.kl_controller = kl_controller(config)
        self.score_moments = RunningMoments()
        seed = config.seed + RANK_SEED_STRIDE * self.ranks.index
        self.generator = torch.Generator(device=policy.device).manual_seed(seed)
        uses_vllm = config.generation.engine == "vllm"
        self.vllm = VLLMSampler(config, policy, tokenizer, accelerator) if uses_vllm else None
        self.epochs = ClippedEpochs(config, policy, accelerator, shuffler)
        self.background = Background()
        self.warming_up = config.uses_critic and config.value_warmup.max_updates > 0
        self.updates_done = 0

    def update(self) -> Update:
        """One round of PPO: sample responses, score them, learn from them."""
        prompts, clock = self.next_prompts(), Stopwatch()
        return self.learn(lambda: self.collect(prompts, clock), clock)

    def collect(self, prompts: list[TokenizedExample], clock: Stopwatch) -> tuple[Experience, Scores]:
        """Sampled responses to this rank's prompts, and what networks and rewards say of them."""
        # 1. Sample; each batch of texts is scored while the next one is sampled and while the networks read.
        if self.vllm is not None:
            self.vllm.load_policy()
        batches, scoring = [], []
        for some in in_batches(prompts, self.config.rollout_batch_size):
            responses = self.called_back("after_sampling", self.sample(some))
            batches.append(responses)
            scoring.append(self.background.submit(self.score, responses=responses))
        clock.lap("rollout")

        def scored() -> Scores:
            return Scores.concatenate([batch.result() for batch in scoring])

        return self.judge(Responses.concatenate(batches), scored, clock)

    def learn(self, collect: Callable[[], tuple[Experience, Scores]], clock: Stopwatch) -> Update:
        """Advantages from this round's experience, the clipped epochs, and what there is to say about both."""
        config = self.config

        # 2. What each rank collected goes to all of them: from here on they compute the same numbers.
        shares = self.ranks.exchange(collect)
        experience = Experience.concatenate([share for share, _ in shares]).to(self.policy.device)
        raw = Scores.concatenate([scores for _, scores in shares])
        raw = self.called_back("after_scoring", experience, raw)
        scores = final_scores(config, raw, experience.has_eos, self.score_moments)
        experience = self.start_critic(experience, float(scores.mean()))

        # 3. Score and KL penalty spread over the tokens; advantages and returns.
        rollout = assign_credit(config, experience, scores, raw, self.kl_controller.kl_coef, self.tokenizer)
        rollout = self.called_back("after_advantages", rollout)
        self.end_warmup_when_explained(rollout)
        clock.lap("exchange")

        # 4. Clipped epochs over the rollout.
        with sharded(self.policy):
            trained = self.epochs.run(rollout, self.learning_rate_factor(), critic_only=self.warming_up)
        clock.lap("update")

        # 5. Report, and steer the KL coefficient.
        said = rollout_metrics(rollout, raw, self.kl_controller.kl_coef, config.uses_critic)
        update = Update(rollout, raw, said | trained | clock.metrics(int(rollout.lengths.sum())))
        # During the warm-up the KL cannot follow the coefficient; one that is not finite would spoil it for good.
        if not trained["policy/warmup"] and math.isfinite(said["objective/kl"]):
            self.kl_controller.update(said["objective/kl"], len(rollout))
        self.updates_done += 1
        for callback in self.callbacks:
            callback.after_update(self, update)
        return update

    def next_prompts(self) -> list[TokenizedExample]:
        """This rank's share of the update's prompts, each `num_generations` times."""
        config = self.config
        drawn = [next(self.prompts) for _ in range(config.batch_size // config.num_generations)]
        mine = drawn[self.ranks.share(len(drawn))]
        return [prompt for prompt in mine for _ in range(config.num_generations)]

    def sample(self, prompts: list[TokenizedExample]) -> Responses:
        """One response to each prompt."""
        if self.vllm is not None:
            return self.vllm.sample(prompts, self.generator)
        return sample_responses(self.policy, self.tokenizer, prompts, self.config.sampling, self.generator)

    def score(self, responses: Responses) -> Scores:
        """The rewards' verdict."""
        prompts = [example.prompt for example in responses.examples]
        return self.rewards(prompts, responses.texts, collate_columns(responses.examples))

    def judge(self, responses: Responses, scored: Callable[[], Scores], clock: Stopwatch) -> tuple[Experience, Scores]:
        """What reference, rewards, policy and critic say of the responses before the update; tensors on the CPU."""
        with self.policy.reference():
            reference = self.evaluate(responses, with_values=False, with_entropy=False)
        clock.lap("reference")
        scores = scored()
        clock.lap("reward")
        old = self.evaluate(responses, with_values=self.config.uses_critic, with_entropy=True)
        clock.lap("evaluation")
        experience = Experience(
            **vars(responses),
            old_logprobs=old.logprobs,
            ref_logprobs=reference.logprobs,
            entropy=old.entropy,
            old_values=old.values,
        )
        return experience.to("cpu"), scores

    def evaluate(self, responses: Responses, *, with_values: bool, with_entropy: bool) -> Evaluation:
        """Log-probabilities (and values, entropy) of sampled responses, without gradients."""
        return evaluate_responses(
            self.policy,
            responses,
            self.config.sampling.temperature,
            self.config.micro_batch_size,
            with_values=with_values,
            with_entropy=with_entropy,
        )

    def start_critic(self, experience: Experience, mean_score: float) -> Experience:
        """A new critic begins at the mean score, as if it had said so before the update."""
        if not (self.policy.new_critic and self.config.uses_critic):
            return experience
        self.policy.start_values_at(mean_score)
        return with_values(experience, mean_score)

    def end_warmup_when_explained(self, rollout: Rollout) -> None:
        """Leave the warm-up once the critic explains enough of returns it was not trained on, or at its limit."""
        if self.warming_up:
            explained = explained_variance(rollout.old_values, rollout.returns, rollout.response_mask)
            warmup = self.config.value_warmup
            good_enough = self.updates_done > 0 and float(explained) >= warmup.explained_variance
            self.warming_up = not good_enough and self.updates_done < warmup.max_updates

    def learning_rate_factor(self) -> float:
        """Share of the peak learning rate: falls to 0 over the updates, or stays 1."""
        return 1 - self.updates_done / self.config.num_updates if self.config.lr_schedule == "linear" else 1.0

    def called_back(self, phase: str, *given: Any) -> Any:
        """The last of the given values, or what the callbacks put in its place."""
        *context, value = given
        for callback in self.callbacks:
            replacement = getattr(callback, phase)(self, *context, value)
            value = value if replacement is None else replacement
        return value


def kl_controller(config: PPOConfig) -> FixedKLController:
    """Adaptive where there is a target to steer to, else fixed."""
    if config.adaptive_kl_target is None:
        return FixedKLController(config.kl_coef)
    return AdaptiveKLController(config.kl_coef, config.adaptive_kl_target, config.adaptive_kl_horizon)
