"""The classic loop: `generate`, score as you like, `step`, with the update of `rlhf.ppo.trainer`."""

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import rlhf.config as native
from rlhf.classic.attributes import Attributes, settings
from rlhf.classic.batch import Batch, id_rows, read_batch, without_queries
from rlhf.classic.config import PPOConfig
from rlhf.classic.generate import Sampler, distribution_mismatch, sample_batch, sampler
from rlhf.classic.given import refuse_newer, require_known_tokens, require_same_trained, require_tokenizer
from rlhf.classic.hub import Saving
from rlhf.classic.padding import unpadded_queries
from rlhf.classic.run import Run
from rlhf.classic.setup import (
    build_accelerator,
    build_dataloader,
    build_native,
    build_policy,
    prepared_optimizer,
    reference_of,
)
from rlhf.classic.shapes import query_rows, response_rows
from rlhf.classic.stats import as_numpy, classic_stats, reward_logs, step_data
from rlhf.classic.watching import troubles
from rlhf.config.checks import require
from rlhf.config.command_line import parse
from rlhf.config.watch import WatchConfig
from rlhf.models.shape import context_length, vocabulary_size
from rlhf.sampling.stopping import as_ids, stop_token_ids
from rlhf.sampling.trial import generating
from rlhf.watch.watch import Watch

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler
    from torch.utils.data import DataLoader
    from transformers import PreTrainedTokenizerFast


class PPOTrainer(Saving, Attributes):
    """PPO on queries, responses and scores that the caller brings; arguments and methods are those of TRL 0.11.

    A subclass may override the methods of `rlhf.classic.methods.Methods`: `step` goes through them.

    Args:
        config: Settings.
        model: An AutoModelForCausalLMWithValueHead, plain (all weights are trained) or PEFT (the adapters are).
        ref_model: The reference that the KL is measured to; None takes a copy of the model as it is now, or a PEFT
            model with its adapters off.
        tokenizer: Its EOS ends responses, and what the model's generation config and the chat template name besides.
        dataset: Rows for `dataloader`, which may come as a stream.
        optimizer: Instead of Adam at config.learning_rate.
        data_collator: For `dataloader`.
        num_shared_layers: Freeze the first layers and share them with the reference that is made of the model.
        lr_scheduler: On the optimizer, stepped after each `step`.
        training_data_collator: Pads queries and responses for the update; None lets it do without padding.

    `PPOTrainer.from_config(config_or_yaml).train()` runs the PPO stage as `rlhf ppo` does.
    """

    def __init__(
        self,
        config: PPOConfig | None = None,
        model: Any = None,
        ref_model: Any = None,
        tokenizer: "PreTrainedTokenizerFast | None" = None,
        dataset: Any = None,
        optimizer: Any = None,
        data_collator: Callable[..., Any] | None = None,
        num_shared_layers: int | None = None,
        lr_scheduler: "LRScheduler | None" = None,
        training_data_collator: Callable[..., Any] | None = None,
        **others: Any,
    ) -> None:
        import transformers

        refuse_newer(others)
        require(isinstance(config, PPOConfig), f"config is a {type(config).__name__}; it must be an rlhf.PPOConfig")
        require_tokenizer(tokenizer)
        assert config is not None
        assert tokenizer is not None
        config.check()
        self.accelerator = build_accelerator(config)
        transformers.set_seed(config.seed + self.accelerator.process_index)
        self.config, self.tokenizer = config, tokenizer
        self._ref_model = reference_of(model, ref_model, num_shared_layers)
        self.policy = build_policy(config, model, self._ref_model, self.accelerator)
        config.world_size, config.is_encoder_decoder, config.is_peft_model = None, None, None  # of another trainer
        self.fill_in_config()
        self.applied = settings(config)
        self.default_collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
        self.data_collator = training_data_collator or self.default_collator
        self.native = build_native(self, self.policy)
        target = config.target if config.adap_kl_ctrl else None
        self.watch = Watch(WatchConfig(), target, context_length(self.policy.language_model))
        self.native.epochs.optimizer = prepared_optimizer(optimizer, config, self.policy, self.accelerator)
        self.optimizer_is_given, self.lr_scheduler = optimizer is not None, lr_scheduler
        self.check_scheduler()
        self.dataset = dataset
        self.dataloader = None if dataset is None else self.prepare_dataloader(dataset, data_collator)
        self.prompts_returned, self.current_step = False, 0
        self.reported: set[str] = set()
        self.stop_ids = set(stop_token_ids(self.policy.language_model, tokenizer))

    @staticmethod
    def from_config(config: native.PPOConfig | str | Path) -> "Run":
        """The PPO stage of a native config, or of the YAML file that holds one; see `rlhf.config.PPOConfig`."""
        if isinstance(config, native.PPOConfig):
            return Run(config)
        return Run(parse(native.PPOConfig, ["--config", str(config)]))

    def prepare_dataloader(self, dataset: Any, data_collator: Callable[..., Any] | None = None) -> "DataLoader":
        """Shuffled batches of config.batch_size rows without the columns that nothing reads; see `build_dataloader`."""
        self.dataloader_rows = self.config.batch_size
        return build_dataloader(self.config, dataset, data_collator, self.model, self.accelerator)

    def generate(
        self,
        query_tensor: Any,
        length_sampler: Callable[[], int] | None = None,
        batch_size: int = 4,
        return_prompt: bool = True,
        generate_ref_response: bool = False,
        **generation_kwargs: Any,
    ) -> Any:
        """Responses of the policy, through EOS or the stop string that ended them.

        Args:
            query_tensor: Token ids of one query (a tensor [L] or a list of ints) or a list of those.
            length_sampler: Draws max_new_tokens for each batch.
            batch_size: Queries that are decoded together.
            return_prompt: Put the query in front of its response.
            generate_ref_response: Also sample from the reference.
            generation_kwargs: For the `generate` of transformers; anything but beams and several sequences per query.

        Returns a list of tensors, or one tensor [1, L] for a single query; a pair of those with generate_ref_response.
        """
        is_single = torch.is_tensor(query_tensor) or all(isinstance(item, int) for item in query_tensor)
        queries = id_rows("query_tensor", [query_tensor] if is_single else query_tensor)
        require_same_trained(self.policy)
        model = self.policy.language_model
        how = sampler(model, self.tokenizer, generation_kwargs)
        self._report_mismatch(distribution_mismatch(how, vocabulary_size(model), self.config.temperature))
        with generating(self.policy, min(batch_size, len(queries))):
            responses = self._sample(model, queries, how, length_sampler, batch_size, return_prompt)
        self.stop_ids.update(as_ids(how.config.eos_token_id))
        result: Any = responses[0].unsqueeze(0) if is_single else responses
        self.prompts_returned = self.prompts_returned or return_prompt  # of any of the responses that `step` may get
        if generate_ref_response:
            with self.policy.reference():
                reference = self.policy.frozen_reference or model
                theirs = self._sample(reference, queries, how, length_sampler, batch_size, return_prompt)
            result = (result, theirs[0].unsqueeze(0) if is_single else theirs)
        self._empty_cache()
        return result

    def step(self, queries: Any, responses: Any, scores: Any, response_masks: Any = None) -> dict[str, Any]:
        """One update of PPO; returns TRL's statistics, see `classic_stats`.

        Warns, once for each kind, of what `rlhf.watch.symptoms` finds in the metrics.

        Args:
            queries: B rows of token ids: lists or tensors [L].
            responses: B rows, without their queries; what `generate` returned with the queries in front is accepted.
            scores: B numbers or tensors with one element; or, for a reward per token, tensors as long as the response.
            response_masks: B rows as long as the responses, 1 at tokens that the policy chose: 0 for padding, or for
                a tool's answer in the middle, which the policy reads and learns nothing from.

        Raises UserError that names the row; the policy has not moved then.
        """
        self.apply_config()
        self.check_scheduler()
        require_same_trained(self.policy)
        queries, responses, scores, response_masks = self._step_safety_checker(
            self.config.batch_size, queries, responses, scores, response_masks
        )
        batch = self._read(queries, responses, scores, response_masks)
        self._push_if_best(batch)
        self.native.given = batch
        update = self.native.update()
        for message in troubles(self.watch, self.kl_ctl, self.native.updates_done, update.metrics):
            warnings.warn(message, stacklevel=2)
        began = time.perf_counter()
        stats = classic_stats(update.rollout, update.metrics, self.config.vf_coef)
        if self.overrides("record_step_stats"):
            stats |= as_numpy(self.record_step_stats(**step_data(update.rollout, update.metrics)))
        stats["time/ppo/calc_stats"] = time.perf_counter() - began
        if self.lr_scheduler is not None:
            self.lr_scheduler.step()
        self._empty_cache()
        return stats

    def log_stats(
        self,
        stats: dict[str, Any],
        batch: dict[str, Any],
        rewards: Any,
        columns_to_log: Sequence[str] = ("query", "response"),
    ) -> None:
        """Send the statistics and the rewards to the tracker `log_with`, W&B also a table of the batch's columns.

        All processes have to call it. W&B counts the steps itself, so that a script's own `wandb.log` goes beside it.
        """
        mine = [torch.as_tensor(reward).sum().item() for reward in rewards]
        everyones = [reward for share in self.native.ranks.gather(mine) for reward in share]
        logs = stats | reward_logs(everyones)
        if self.config.log_with == "wandb":
            import wandb

            missing = [name for name in columns_to_log if name not in batch]
            require(not missing, f"batch has no column {', '.join(missing)} to log; give columns_to_log those it has")
            rows = [list(row) for row in zip(*(batch[name] for name in columns_to_log), mine, strict=True)]
            gathered = [row for share in self.native.ranks.gather(rows) for row in share]
            logs["game_log"] = wandb.Table(columns=[*columns_to_log, "reward"], rows=gathered)
        self.current_step += 1
        self.accelerator.log(logs, step=None if self.config.log_with == "wandb" else self.current_step)

    def _sample(
        self,
        model: Any,
        queries: list[Tensor],
        how: Sampler,
        length_sampler: Callable[[], int] | None,
        batch_size: int,
        return_prompt: bool,
    ) -> list[Tensor]:
        """Responses of a model, batch_size at a time."""
        bare, responses = unpadded_queries(queries, self.tokenizer), []
        require_known_tokens("query_tensor", bare, vocabulary_size(model))
        for start in range(0, len(queries), batch_size):
            if length_sampler is not None:
                how.config.max_new_tokens = int(length_sampler())
            responses += sample_batch(model, bare[start : start + batch_size], how)
        if return_prompt:
            return [torch.cat([q.to(r.device), r]) for q, r in zip(queries, responses, strict=True)]
        return responses

    def _read(self, queries: Any, responses: Any, scores: Any, masks: Any) -> Batch:
        """The checked batch of a step, queries in front of responses taken off."""
        rows, given = id_rows("queries", queries), id_rows("responses", responses)
        bare = without_queries(rows, given) or without_queries(unpadded_queries(rows, self.tokenizer), given)
        if bare and self.prompts_returned:
            if masks is not None:
                masks = [
                    mask[-len(kept) :] if len(mask) == len(whole) else mask
                    for mask, kept, whole in zip(masks, bare, given, strict=True)
                ]
            given = bare
        elif bare and min(map(len, rows)) > 1:
            self._warn_once(
                "copies",
                "every response begins with its whole query, which the policy reads twice and learns to repeat. Unless "
                "that is meant, pass step the responses alone, as generate(..., return_prompt=False) returns them",
            )
        batch = read_batch(rows, given, scores, masks, self.tokenizer, self.stop_ids)
        for name, ids in {"queries": query_rows, "responses": response_rows}.items():
            require_known_tokens(name, ids(batch.responses), vocabulary_size(self.policy.language_model))
        if batch.unpadded:
            self._warn_once(
                "padding",
                f"{batch.unpadded} of {len(batch.responses)} rows have pad tokens at an edge, which the policy would "
                "read as text and learn from: they are taken off. Pass rows without padding",
            )
        changes = {"use_score_scaling": self.config.use_score_scaling, "whiten_rewards": self.config.whiten_rewards}
        changes["score_clip"] = self.config.score_clip is not None
        for name, is_set in changes.items():
            clash = is_set and any(batch.token_rewards)
            require(not clash, f"{name} does not go with a reward per token; turn it off")
        return batch

    def _report_mismatch(self, found: Iterable[str]) -> None:
        """Warn, once for the same settings, that `step` will optimize other probabilities than those sampled from."""
        if names := ", ".join(found):
            self._warn_once(
                f"{names} instead of {self.config.temperature}",
                f"generate samples with {names}, but step computes log-probabilities over all tokens at "
                f"temperature {self.config.temperature:g}: other probabilities are optimized than sampled. Pass "
                "do_sample=True, top_k=0, top_p=1.0, and the same temperature to generate and PPOConfig",
            )

    def _warn_once(self, kind: str, message: str) -> None:
        if kind not in self.reported:
            self.reported.add(kind)
            warnings.warn(message, stacklevel=4)

    def _empty_cache(self) -> None:
        if self.config.optimize_device_cache:
            from rlhf.models.private_names import clear_device_cache

            clear_device_cache(garbage_collection=True)
