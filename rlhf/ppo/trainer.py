"""PPO: sample, score, evaluate, exchange, assign credit, clipped epochs, report."""

import math
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from rlhf.config import PPOConfig
from rlhf.config.own_loop import Hooks, instances, replaced, require_updates_left
from rlhf.data.examples import TokenizedExample
from rlhf.data.prompts import PromptSource, ShuffledPasses, in_batches
from rlhf.environments.episodes import Sampler, episodes_of, respond, seeded
from rlhf.maths.kl import kl_controller, kl_estimate
from rlhf.maths.tensors import RunningMoments, explained_variance
from rlhf.parallel.ranks import Ranks
from rlhf.policy.policy import Policy, PolicyOutput
from rlhf.policy.sharding import in_step
from rlhf.ppo.credit import assign_credit, final_scores
from rlhf.ppo.metrics import rollout_metrics
from rlhf.ppo.rollout import Experience, Rollout, exact_kl, policy_outputs
from rlhf.ppo.stopwatch import Stopwatch
from rlhf.ppo.update import ClippedEpochs, Metrics
from rlhf.rewards import RewardSum, Scores, TrainerState, reward_inputs
from rlhf.rewards.calling import Background
from rlhf.sampling.ahead import Ahead
from rlhf.sampling.responses import Responses, continued
from rlhf.sampling.sizes import choose_copies_for
from rlhf.sampling.turn_cache import TurnCache
from rlhf.sampling.vllm import VLLMSampler

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedTokenizerFast

RANK_SEED_STRIDE = 1_000_003
Batch = tuple[Responses, list[Future[Scores]]]
"""This rank's responses, and the scores to come of one part of them after the other."""


class Update(NamedTuple):
    """One round of PPO: the rollout of all ranks, the scores of each reward, and the metrics."""

    rollout: Rollout
    scores: Scores
    metrics: Metrics


class Callback(Hooks):
    """Methods that are called after each phase of an update; override those you need.

    Whatever a method returns, unless None, takes the place of what it was given. On several processes `after_sampling`
    gets this rank's responses, the others the whole batch; they must decide alike on all of them.
    """

    def after_sampling(self, trainer: "PPOTrainer", responses: Responses) -> Responses | None:
        """Responses are sampled (`rollout_batch_size` of them) and not scored yet."""

    def after_scoring(self, trainer: "PPOTrainer", responses: Responses, scores: Scores) -> Scores | None:
        """Every reward has its scores; nothing is normalized or clipped yet."""

    def after_advantages(self, trainer: "PPOTrainer", rollout: Rollout) -> Rollout | None:
        """Credit is assigned; the policy has not moved yet."""

    def after_update(self, trainer: "PPOTrainer", update: Update) -> Update | None:
        """The clipped epochs are over."""


class PPOTrainer:
    """Proximal policy optimization of a language model (Schulman et al. 2017; Ziegler et al. 2019).

    Args:
        config: The stage's settings.
        policy: Policy, critic and reference.
        tokenizer: Decodes responses; its EOS ends them.
        reward_fn: The weighted sum of the rewards.
        prompts: Where the next prompts come from.
        shuffler: Draws the minibatches (and may draw the prompts); the same on all ranks.
        accelerator: Knows the other processes.
        callbacks: Called after each phase.
    """

    def __init__(
        self,
        config: PPOConfig,
        policy: Policy,
        tokenizer: "PreTrainedTokenizerFast",
        reward_fn: RewardSum,
        prompts: PromptSource,
        shuffler: torch.Generator,
        accelerator: "Accelerator",
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.config, self.policy, self.tokenizer, self.reward_fn = config, policy, tokenizer, reward_fn
        self.prompts, self.shuffler, self.callbacks = prompts, shuffler, instances(callbacks, Callback)
        self.ranks = Ranks.of(accelerator)
        self.kl_controller = kl_controller(config.kl_coef, config.adaptive_kl_target, config.adaptive_kl_horizon)
        self.score_moments = RunningMoments()
        seed = config.seed + RANK_SEED_STRIDE * self.ranks.index
        self.generator = torch.Generator(device=policy.device).manual_seed(seed)
        uses_vllm = config.generation.engine == "vllm"
        self.vllm = VLLMSampler(config, policy, tokenizer, accelerator) if uses_vllm else None
        self.ahead = Ahead(self.sample) if config.generation.overlap else None
        self.episodes = episodes_of(config, policy.language_model, tokenizer)
        self.epochs = ClippedEpochs(config, policy, self.ranks, shuffler)
        self.background = Background()
        self.batch: Batch
        self.warming_up = config.uses_critic and config.value_warmup.max_updates > 0
        self.updates_done = 0

    def update(self) -> Update:
        """One round of PPO."""
        require_updates_left(self.config, self.updates_done)
        if self.policy.shortcuts.copies is None:
            self.choose_copies()
        clock = Stopwatch()
        with self.ranks.failing_together(), in_step(self.policy):
            # 1. Sample a response to each prompt; those that are there are scored while the next are sampled.
            responses, scoring = self.next_batch()
            clock.lap("rollout")

            # 2. Evaluate them: log-probabilities under reference and policy, entropy, values.
            experience = self.evaluate(responses, clock)

            # 3. Score: wait for what the rewards have not finished.
            component_scores = Scores.concatenate([batch.result() for batch in scoring])
            clock.lap("reward")

        # 4. Exchange: all ranks get what each has collected. From here on they compute the same numbers.
        experience, component_scores = self.exchange(experience, component_scores)
        component_scores = self.called_back("after_scoring", experience, component_scores)

        # 5. Assign credit: scores and KL penalty over the tokens, advantages, returns.
        rollout = self.credit(experience, component_scores)
        clock.lap("exchange")

        # 6. Clipped epochs over the rollout.
        trained = self.epochs.run(rollout, self.learning_rate_factor(), critic_only=self.warming_up)
        clock.lap("update")

        # 7. Report, and steer the KL coefficient.
        return self.report(rollout, component_scores, trained | clock.metrics(int(rollout.lengths.sum())))

    @property
    def reused(self) -> int:
        """Updates that have learned from the batch of the next update before it: 0 where that one samples anew."""
        return self.updates_done % self.config.reuse_batch

    def next_batch(self) -> Batch:
        """A batch that is sampled now or was requested one update ago or, with reuse_batch, that of the last update."""
        if not self.reused:
            ahead = self.ahead
            self.batch = self.sample_and_score(self.next_prompts()) if ahead is None else self.take_and_request(ahead)
        return self.batch

    def choose_copies(self) -> None:
        """Decide, once per run and on all ranks alike, whether decoding merges the adapters into a copy of weights."""
        known = self.prompts.prompts if isinstance(self.prompts, ShuffledPasses) else []
        choose_copies_for(self.config, self.policy, max((len(p.prompt_ids) for p in known), default=0), self.ranks)

    def next_prompts(self) -> list[TokenizedExample]:
        """This rank's share of the update's prompts, each `num_generations` times."""
        config = self.config
        drawn = [next(self.prompts) for _ in range(config.batch_size // config.num_generations)]
        mine = self.seeded(drawn, f"update {self.updates_done + 1}")[self.ranks.share(len(drawn))]
        return [prompt for prompt in mine for _ in range(config.num_generations)]

    def seeded(self, prompts: list[TokenizedExample], occasion: str) -> list[TokenizedExample]:
        """The prompts with seeds for their episodes; as they are where there are none."""
        return prompts if self.episodes is None else seeded(prompts, f"{occasion} of {self.config.seed}")

    def sample_and_score(self, prompts: list[TokenizedExample]) -> Batch:
        """Responses, sampled `rollout_batch_size` at a time, and the scores of each such batch, once they are there."""
        if self.vllm is not None:
            self.vllm.load_policy()
        batches, scoring = [], []
        for some in in_batches(prompts, self.config.rollout_batch_size):
            responses = self.called_back("after_sampling", self.sample(some))
            batches.append(responses)
            scoring.append(self.background.submit(self.score, responses=responses))
        return Responses.concatenate(batches), scoring

    def take_and_request(self, ahead: Ahead) -> Batch:
        """The batch that was requested one update ago, and its scores to come; the next one is requested."""
        if ahead.pending is None:  # in the first update
            self.request(ahead)
        with self.ranks.failing_together():  # sending the weights, below, takes all of them
            responses = self.called_back("after_sampling", ahead.take(self.updates_done))
        if self.updates_done + 1 < self.config.num_updates:
            self.request(ahead)
        return responses, [self.background.submit(self.score, responses=responses)]

    def request(self, ahead: Ahead) -> None:
        """Have the policy as it is now sample responses to the next prompts."""
        assert self.vllm is not None  # the config says so
        self.vllm.load_policy()
        ahead.request(self.next_prompts(), self.updates_done)

    def sample(self, prompts: list[TokenizedExample]) -> Responses:
        """One response to each prompt, or an episode that begins with it."""
        by = self.sampler(self.generator) if self.vllm is None else partial(self.vllm.continued, self.generator)
        return respond(prompts, by, self.tokenizer, self.episodes)

    def sampler(self, generator: torch.Generator) -> Sampler:
        """The decode loop of this package on the policy as it is, for responses or for the turns of one batch."""
        turns = None if self.episodes is None else TurnCache()
        return partial(continued, self.policy, self.tokenizer, self.config.sampling, generator, turns=turns)

    def score(self, responses: Responses) -> Scores:
        """The scores of each reward."""
        inputs = reward_inputs(responses.examples, responses.texts, responses.episodes)
        return self.reward_fn(*inputs, completion_ids=responses.all_response_ids(), state=self.state())

    def state(self) -> TrainerState:
        """How far the training is, for rewards that change with it."""
        batches = math.ceil(self.updates_done / self.config.reuse_batch)
        drawn = batches * (self.config.batch_size // self.config.num_generations)
        epoch = drawn / len(self.prompts.prompts) if isinstance(self.prompts, ShuffledPasses) else None
        return TrainerState(self.updates_done, self.config.num_updates, epoch, self.ranks.is_first)

    def evaluate(self, responses: Responses, clock: Stopwatch) -> Experience:
        """The responses with what reference, policy and critic compute for them before the update."""
        with self.policy.reference():
            reference = self.forward(responses, with_values=False, with_entropy=False)
        clock.lap("reference")
        old = self.forward(responses, with_values=self.config.uses_critic, with_entropy=True)
        clock.lap("evaluation")
        config = self.config
        if config.kl_estimator == "exact":
            kl = exact_kl(self.policy, responses, config.sampling.temperature, config.micro_batch_size)
        else:
            kl = kl_estimate(old.logprobs, reference.logprobs, config.kl_estimator)
        return Experience(
            **vars(responses),
            old_logprobs=old.logprobs,
            ref_logprobs=reference.logprobs,
            entropy=old.entropy,
            old_values=old.values,
            kl=kl,
        )

    def forward(self, responses: Responses, *, with_values: bool, with_entropy: bool) -> PolicyOutput:
        """Log-probabilities (and values, entropy) of sampled responses, without gradients."""
        temperature, n_rows = self.config.sampling.temperature, self.config.micro_batch_size
        return policy_outputs(
            self.policy, responses, temperature, n_rows, with_values=with_values, with_entropy=with_entropy
        )

    def exchange(self, experience: Experience, component_scores: Scores) -> tuple[Experience, Scores]:
        """The experience and the scores of all ranks, on each of them."""
        shares = self.ranks.gather((experience.to("cpu"), component_scores))
        together = Experience.concatenate([experience for experience, _ in shares]).to(self.policy.device)
        return together, Scores.concatenate([scores for _, scores in shares])

    def credit(self, experience: Experience, component_scores: Scores) -> Rollout:
        """The rollout that is learned from; a new critic begins at its mean return, the warm-up may end with it."""
        config = self.config
        scores = final_scores(config, component_scores, experience.has_eos, self.score_moments, not self.reused)
        kl_coef, new_critic = self.kl_controller.kl_coef, self.policy.new_critic and config.uses_critic
        rollout = assign_credit(config, experience, scores, component_scores, kl_coef, self.tokenizer, new_critic)
        if new_critic:
            self.policy.start_values_at(float(rollout.old_values[rollout.response_mask][0]))  # the same everywhere
        rollout = self.called_back("after_advantages", rollout)
        self.end_warmup_when_explained(rollout)
        return rollout

    def report(self, rollout: Rollout, component_scores: Scores, trained: Metrics) -> Update:
        """The update with its metrics; the KL coefficient follows the KL that was measured."""
        kl_coef, is_old = self.kl_controller.kl_coef, self.reused > 0
        measured = rollout_metrics(rollout, component_scores, kl_coef, self.config.uses_critic, is_old)
        if self.ahead is not None or self.config.reuse_batch > 1:
            measured["sampling/staleness"] = float(self.reused if self.ahead is None else self.ahead.staleness)
        update = Update(rollout, component_scores, measured | trained)
        # In the warm-up the policy stands still, and NaN would spoil the coefficient for good.
        if not trained["policy/warmup"] and math.isfinite(measured.get("objective/kl", math.nan)):
            self.kl_controller.update(measured["objective/kl"], len(rollout))
        self.updates_done += 1
        return self.called_back("after_update", update)

    def end_warmup_when_explained(self, rollout: Rollout) -> None:
        """Leave the warm-up once the critic explains enough of returns it was not trained on, or at its limit."""
        if self.warming_up:
            explained = explained_variance(rollout.old_values, rollout.returns, rollout.response_mask)
            warmup = self.config.value_warmup
            good_enough = self.updates_done > 0 and not self.reused and float(explained) >= warmup.explained_variance
            self.warming_up = not good_enough and self.updates_done < warmup.max_updates

    def learning_rate_factor(self) -> float:
        """Share of the peak learning rate: falls to 0 over the updates, or stays 1."""
        return 1 - self.updates_done / self.config.num_updates if self.config.lr_schedule == "linear" else 1.0

    def called_back(self, phase: str, *given: Any) -> Any:
        """The last of the given values, or what the callbacks put in its place."""
        *context, value = given
        for callback in self.callbacks:
            value = replaced(callback, phase, value, getattr(callback, phase)(self, *context, value))
        return value
