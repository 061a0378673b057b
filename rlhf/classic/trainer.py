"""The classic loop: `generate`, score as you like, `step`, with the update of `rlhf.ppo.trainer`."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import rlhf.config as native
from rlhf.classic.batch import id_rows, read_batch, without_queries
from rlhf.classic.checkpoints import save_checkpoint
from rlhf.classic.config import PPOConfig
from rlhf.classic.generate import distribution_mismatch, sample_batch, sampler
from rlhf.classic.setup import GivenOptimizer, build_accelerator, build_dataloader, build_native, build_policy
from rlhf.classic.stats import classic_stats
from rlhf.config.checks import require
from rlhf.config.command_line import parse
from rlhf.config.watch import WatchConfig
from rlhf.models.shape import context_length, vocabulary_size
from rlhf.ppo.trainer import Callback
from rlhf.sampling.trial import generating
from rlhf.watch.watch import Watch

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler
    from transformers import PreTrainedTokenizerFast


class PPOTrainer:
    """PPO on queries, responses and scores that the caller brings; arguments and methods are those of TRL 0.11.

    Args:
        config: Settings.
        model: An AutoModelForCausalLMWithValueHead, plain (all weights are trained) or PEFT (the adapters are).
        ref_model: The reference that the KL is measured to; None takes a copy of the model as it is now, or a PEFT
            model with its adapters off.
        tokenizer: Its EOS ends responses.
        dataset: Rows for `dataloader`.
        optimizer: Instead of AdamW at config.learning_rate.
        data_collator: For `dataloader`.
        num_shared_layers: Refused; it froze the layers that model and reference share.
        lr_scheduler: On `optimizer`, stepped after each `step`.

    `PPOTrainer.from_config(config_or_yaml).train()` runs the PPO stage as `rlhf ppo` does.
    """

    def __init__(
        self,
        config: PPOConfig,
        model: Any,
        ref_model: Any = None,
        tokenizer: "PreTrainedTokenizerFast | None" = None,
        dataset: Any = None,
        optimizer: torch.optim.Optimizer | None = None,
        data_collator: Callable[..., Any] | None = None,
        num_shared_layers: None = None,
        lr_scheduler: "LRScheduler | None" = None,
    ) -> None:
        import transformers

        require(tokenizer is not None, "tokenizer is None; PPOTrainer needs the model's tokenizer")
        assert tokenizer is not None
        require(
            num_shared_layers is None, "num_shared_layers is not supported: freeze layers with requires_grad_(False)"
        )
        require(lr_scheduler is None or optimizer is not None, "lr_scheduler needs the optimizer that it was made for")
        self.accelerator = build_accelerator(config)
        transformers.set_seed(config.seed + self.accelerator.process_index)
        self.config, self.model, self.ref_model, self.tokenizer = config, model, ref_model, tokenizer
        self.policy = build_policy(config, model, ref_model, self.accelerator)
        self.native = build_native(config, self.policy, tokenizer, self.accelerator)
        target = config.target if config.adap_kl_ctrl else None
        self.watch = Watch(WatchConfig(), target, context_length(self.policy.language_model))
        self.optimizer, self.lr_scheduler = optimizer or self.native.epochs.optimizer, lr_scheduler
        if optimizer is not None:
            self.native.epochs.optimizer = GivenOptimizer(optimizer, self.policy)  # type: ignore[assignment]
        self.dataset, self.dataloader = dataset, None
        if dataset is not None:
            self.dataloader = build_dataloader(config, dataset, data_collator, model, self.accelerator)
        self.prompts_returned = self.mismatch_reported = False

    @staticmethod
    def from_config(config: native.PPOConfig | str | Path) -> "Run":
        """The PPO stage of a native config, or of the YAML file that holds one; see `rlhf.config.PPOConfig`."""
        if isinstance(config, native.PPOConfig):
            return Run(config)
        return Run(parse(native.PPOConfig, ["--config", str(config)]))

    @property
    def current_device(self) -> torch.device:
        """Where the model is."""
        return self.policy.device

    def generate(
        self,
        query_tensor: Any,
        length_sampler: Callable[[], int] | None = None,
        batch_size: int = 4,
        return_prompt: bool = True,
        **generation_kwargs: Any,
    ) -> Any:
        """Responses of the policy, through EOS or the stop string that ended them.

        Args:
            query_tensor: Token ids of one query (a tensor [L] or a list of ints) or a list of those.
            length_sampler: Draws max_new_tokens for each batch.
            batch_size: Queries that are decoded together.
            return_prompt: Put the query in front of its response.
            generation_kwargs: For the `generate` of transformers; anything but beams and several sequences per query.

        Returns a list of tensors, or one tensor [1, L] for a single query.
        """
        is_single = torch.is_tensor(query_tensor) or all(isinstance(item, int) for item in query_tensor)
        queries = id_rows("query_tensor", [query_tensor] if is_single else query_tensor)
        model, how = self.policy.language_model, sampler(self.policy.language_model, self.tokenizer, generation_kwargs)
        self._report_mismatch(distribution_mismatch(how.config, vocabulary_size(model), self.config.temperature))
        responses: list[Tensor] = []
        with generating(self.policy, min(batch_size, len(queries))):
            for start in range(0, len(queries), batch_size):
                if length_sampler is not None:
                    how.config.max_new_tokens = length_sampler()
                responses += sample_batch(model, queries[start : start + batch_size], how)
        self.prompts_returned = return_prompt
        if return_prompt:
            responses = [torch.cat([q.to(r.device), r]) for q, r in zip(queries, responses, strict=True)]
        return responses[0].unsqueeze(0) if is_single else responses

    def step(self, queries: Any, responses: Any, scores: Any, response_masks: Any = None) -> dict[str, Any]:
        """One update of PPO; returns TRL's statistics, see `classic_stats`.

        Warns, once for each kind, of what `rlhf.watch.symptoms` finds in the metrics.

        Args:
            queries: B rows of token ids: lists or tensors [L].
            responses: B rows, without their queries; what `generate` returned with the queries in front is accepted.
            scores: B numbers or tensors with one element; or, for a reward per token, tensors as long as the response.
            response_masks: B rows of ones, then zeros where padding begins.

        Raises UserError that names the row; the policy has not moved then.
        """
        if self.prompts_returned:
            responses = without_queries(id_rows("queries", queries), id_rows("responses", responses)) or responses
        batch = read_batch(queries, responses, scores, response_masks, self.tokenizer)
        self._check_token_rewards(batch.token_rewards)
        self.native.given = batch
        update = self.native.update()
        for finding in self.watch.check(self.native.updates_done, update.metrics):
            warnings.warn(finding.message, stacklevel=2)
        stats = classic_stats(update.rollout, update.metrics, self.config.vf_coef)
        stats["ppo/learning_rate"] = self.optimizer.param_groups[0]["lr"]
        if self.lr_scheduler is not None:
            self.lr_scheduler.step()
        return stats

    def log_stats(
        self,
        stats: dict[str, Any],
        batch: dict[str, Any],
        rewards: Any,
        columns_to_log: Sequence[str] = ("query", "response"),
    ) -> None:
        """Send the statistics and the rewards to the tracker `log_with`, W&B also a table of the batch's columns."""
        rewards = torch.tensor([torch.as_tensor(reward).sum().item() for reward in rewards])
        logs = dict(stats)
        logs |= {"env/reward_mean": rewards.mean().item(), "env/reward_std": rewards.std(correction=0).item()}
        logs["env/reward_dist"] = rewards.numpy()
        if self.config.log_with == "wandb":
            import wandb

            rows = [list(row) for row in zip(*(batch[name] for name in columns_to_log), rewards.tolist(), strict=True)]
            logs["game_log"] = wandb.Table(columns=[*columns_to_log, "reward"], rows=rows)
        self.accelerator.log(logs, step=self.native.updates_done)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write model, value head and tokenizer; TRL and `AutoModelForCausalLMWithValueHead` read the folder."""
        if self.accelerator.is_main_process:
            save_checkpoint(self.model, save_directory)
            self.tokenizer.save_pretrained(save_directory)

    def _report_mismatch(self, settings: list[str]) -> None:
        """Say, once, that `step` will optimize other probabilities than those sampled from."""
        if settings and not self.mismatch_reported:
            self.mismatch_reported = True
            warnings.warn(
                f"generate samples with {', '.join(settings)}, but step computes log-probabilities over all tokens at "
                f"temperature {self.config.temperature:g}: other probabilities are optimized than sampled. Pass "
                "do_sample=True, top_k=0, top_p=1.0, and the same temperature to generate and PPOConfig",
                stacklevel=3,
            )

    def _check_token_rewards(self, token_rewards: Iterable[list[float]]) -> None:
        """Raise UserError where settings that change scores would miss a reward per token."""
        config = self.config
        changes = {"use_score_scaling": config.use_score_scaling, "whiten_rewards": config.whiten_rewards}
        changes["score_clip"] = config.score_clip is not None
        for name, is_set in changes.items():
            require(not (is_set and any(token_rewards)), f"{name} does not go with a reward per token; turn it off")


@dataclass(frozen=True)
class Run:
    """A PPO stage that is ready to run."""

    config: native.PPOConfig

    def train(self, prompts: Iterable[Any] | None = None, callbacks: Sequence[Callback] = ()) -> Path:
        """Train and write the policy; returns its folder. See `rlhf.stages.ppo.run_ppo`."""
        from rlhf.stages.ppo import run_ppo

        return run_ppo(self.config, prompts, callbacks)
