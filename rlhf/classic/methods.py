"""The stages of TRL 0.11's update as methods, on its shapes: L tokens of query and response, numbers [B, L - 1].

`step` does not need them: it works on response tokens alone and keeps no logits. But it goes through those that a
subclass overrides or a script assigns, see `rlhf.classic.update`.
"""

import inspect
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlhf.classic.batch import id_rows, mask_rows, score_rows
from rlhf.classic.config import KL_ESTIMATORS, PPOConfig
from rlhf.config.checks import require
from rlhf.maths.advantages import gae, kl_shaped_rewards
from rlhf.maths.kl import kl_estimate, kl_from_logits
from rlhf.maths.losses import clipped_policy_loss, clipped_value_loss
from rlhf.maths.tensors import (
    at_least_float32,
    entropy_from_logits,
    logprobs_from_logits,
    masked_mean,
    masked_moments,
    masked_sum,
    scale_to_unit_variance,
    whiten,
)

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedTokenizerFast

FORWARD = ("prepare_model_inputs", "batched_forward_pass")
CREDIT = ("compute_rewards", "_kl_penalty", "compute_advantages")
LOSS = ("loss",)
MINIBATCH = ("train_minibatch", "_early_stop")
ALWAYS = ("_step_safety_checker", "record_step_stats", "prepare_dataloader", "_save_pretrained", "generate")
NOT_CALLED = {
    "_generate_batched": "override generate",
    "_prepare_deepspeed": "the trainer does not run on DeepSpeed",
    "_remove_unused_columns": "override prepare_dataloader, or set remove_unused_columns=False",
    "_set_signature_columns_if_needed": "override prepare_dataloader, or set remove_unused_columns=False",
    "gather_stats": "statistics are over all processes already; override step to change them",
}
"""Methods of TRL that have no counterpart here, and what does their work."""


class Methods:
    """What a subclass may override; see TRL 0.11 for the meaning of the arguments."""

    config: PPOConfig
    model: Any
    ref_model: Any
    tokenizer: "PreTrainedTokenizerFast"
    optimizer: Any
    accelerator: "Accelerator"
    current_device: torch.device
    data_collator: Any = None
    default_collator: Any = None
    kl_ctl: Any

    def overrides(self, *names: str) -> bool:
        """Whether a subclass, or an assignment to this object, has put something else in the place of a method."""
        return any(name in vars(self) or getattr(type(self), name) is not getattr(Methods, name) for name in names)

    def _step_safety_checker(
        self, batch_size: int, queries: Any, responses: Any, scores: Any, masks: Any = None
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor] | None]:
        """The rows of a step as tensors; raises UserError for what they cannot be. Any number of rows is accepted."""
        return (
            id_rows("queries", queries),
            id_rows("responses", responses),
            score_rows(scores),
            None if masks is None else mask_rows(masks),
        )

    def prepare_model_inputs(self, queries: Sequence[Tensor], responses: Sequence[Tensor]) -> Any:
        """input_ids and attention_mask [B, L], padded by `data_collator` on the tokenizer's side."""
        rows = [torch.cat([query, response]) for query, response in zip(queries, responses, strict=True)]
        inputs = self.data_collator([{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in rows])
        inputs.pop("labels", None)
        return inputs.to(self.current_device)

    def batched_forward_pass(
        self,
        model: Any,
        queries: Sequence[Tensor],
        responses: Sequence[Tensor],
        model_inputs: Any,
        return_logits: bool = False,
        response_masks: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """(logprobs [B, L - 1], logits [B, L - 1, V] or None, values [B, L - 1], masks [B, L - 1]).

        mini_batch_size rows at a time; logits are divided by the config's temperature. Masks are 1 at the columns
        that predict a response token, unless response_masks leave it out.
        """
        results = []
        for start in range(0, len(queries), self.config.mini_batch_size):
            some = slice(start, start + self.config.mini_batch_size)
            inputs = {name: values[some] for name, values in model_inputs.items()}
            logits, values = logits_and_values(model, inputs)
            logits = logits[:, :-1] / self.config.temperature
            given = None if response_masks is None else response_masks[some]
            masks = response_columns(queries[some], responses[some], inputs["attention_mask"], given)
            logprobs = logprobs_from_logits(logits, inputs["input_ids"][:, 1:])
            results.append((logprobs, logits if return_logits else None, values[:, :-1], masks))
        all_logprobs, all_logits, all_values, all_masks = zip(*results, strict=True)
        joined = torch.cat(all_logits) if return_logits else None
        return torch.cat(all_logprobs), joined, torch.cat(all_values), torch.cat(all_masks)

    def _kl_penalty(self, logprob: Tensor, ref_logprob: Tensor) -> Tensor:
        """Per token; with kl_penalty `full` from log-probabilities of the whole vocabulary [..., V]."""
        if self.config.kl_penalty == "full":
            return kl_from_logits(logprob, ref_logprob)
        return kl_estimate(logprob, ref_logprob, KL_ESTIMATORS[self.config.kl_penalty])

    def compute_rewards(
        self, scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, masks: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(rewards, their part that is no score, KL), each [B, L - 1], from scores [B]; 0 outside the masks."""
        kl, mask = self._kl_penalty(logprobs, ref_logprobs), masks.bool()
        no_score = torch.zeros_like(at_least_float32(scores))
        coefficient = self.kl_ctl.value
        penalty = kl_shaped_rewards(no_score, kl, mask, coefficient)
        return kl_shaped_rewards(scores, kl, mask, coefficient), penalty, kl

    def compute_advantages(self, values: Tensor, rewards: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(values, whitened advantages, returns), each [B, L - 1]."""
        is_action = mask.bool()
        if self.config.whiten_rewards:
            rewards = scale_to_unit_variance(rewards, is_action)
        advantages, returns = gae(rewards, values, is_action, self.config.gamma, self.config.lam)
        return torch.where(is_action, values, 0.0), whiten(advantages, is_action), returns

    def loss(
        self,
        old_logprobs: Tensor,
        values: Tensor,
        logits: Tensor,
        vpreds: Tensor,
        logprobs: Tensor,
        mask: Tensor,
        advantages: Tensor,
        returns: Tensor,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(policy loss, vf_coef * value loss, statistics)."""
        config, is_action = self.config, mask.bool()
        policy_loss, policy = clipped_policy_loss(logprobs, old_logprobs, advantages, is_action, config.cliprange)
        value_loss, critic = clipped_value_loss(vpreds, values, returns, is_action, config.cliprange_value)
        with torch.no_grad():
            total = policy_loss + config.vf_coef * value_loss
            stats = {
                "loss/policy": policy_loss,
                "loss/value": value_loss,
                "loss/total": total,
                "policy/entropy": masked_mean(entropy_from_logits(logits).expand(mask.shape), is_action),
                "policy/approxkl": policy["approx_kl"],
                "policy/policykl": policy["approx_kl_k1"],
                "policy/clipfrac": policy["clip_fraction"],
                "policy/advantages": advantages,
                "policy/advantages_mean": masked_mean(advantages, is_action),
                "policy/ratio": torch.where(is_action, (logprobs - old_logprobs).exp(), 1.0),
                "val/vpred": masked_mean(vpreds, is_action),
                "val/error": masked_mean((vpreds - returns) ** 2, is_action),
                "val/clipfrac": critic["clip_fraction"],
            }
            for name, x in (("returns", returns), ("val", values)):
                stats[f"{name}/mean"], stats[f"{name}/var"] = masked_moments(x, is_action)
        return policy_loss, config.vf_coef * value_loss, {name: value.detach() for name, value in stats.items()}

    def train_minibatch(
        self,
        old_logprobs: Tensor,
        values: Tensor,
        logprobs: Tensor,
        logits: Tensor,
        vpreds: Tensor,
        mask: Tensor,
        advantages: Tensor,
        returns: Tensor,
    ) -> dict[str, Tensor]:
        """Loss, gradient and, once gradient_accumulation_steps minibatches are together, an optimizer step."""
        self.model.train()
        loss_p, loss_v, stats = self.loss(old_logprobs, values, logits, vpreds, logprobs, mask, advantages, returns)
        ratio = float(masked_mean((logprobs.detach() - old_logprobs).exp(), mask.bool()))
        self.accelerator.backward((loss_p + loss_v) * float(not self.ratio_is_too_large(ratio)))
        if self.config.max_grad_norm is not None and self.accelerator.sync_gradients:
            trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            self.accelerator.clip_grad_norm_(trained, self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return stats

    def ratio_is_too_large(self, ratio: float) -> bool:
        """Whether a minibatch is skipped, its mean ratio being above ratio_threshold; warns of it."""
        limit = self.config.ratio_threshold
        if ratio > limit:
            warnings.warn(f"a minibatch was skipped: its mean ratio {ratio:.2f} is above ratio_threshold {limit:g}")
        return ratio > limit

    def _early_stop(self, policykl: Tensor) -> bool:
        """Whether an epoch was the last one, from mean(old - new log-probability) of its last minibatch."""
        return self.config.early_stopping and float(policykl) > 1.5 * self.config.target_kl

    def record_step_stats(self, kl_coef: float, **data: Any) -> dict[str, Any]:
        """TRL's statistics of a step, from its data: masks, kls, logprobs, ref_logprobs, non_score_reward, scores, ...

        `train_stats` are numbers of the optimizer steps, which come out averaged, below ppo/.
        """
        mask, scores = data["masks"].bool(), data["scores"]
        per_response = masked_sum(data["kls"], mask, dim=-1)
        stats = {
            "objective/kl": per_response.mean(),
            "objective/kl_dist": per_response,
            "objective/logprobs": data["logprobs"],
            "objective/ref_logprobs": data["ref_logprobs"],
            "objective/kl_coef": kl_coef,
            "objective/entropy": -masked_sum(data["logprobs"], mask, dim=-1).mean(),
            "ppo/mean_non_score_reward": masked_mean(data["non_score_reward"], mask),
            "ppo/mean_scores": scores.mean(),
            "ppo/std_scores": scores.std(correction=min(1, len(scores) - 1)),
        }
        return stats | {f"ppo/{name}": value.float().mean(0) for name, value in data["train_stats"].items()}


def logits_and_values(model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits [B, L, V] in float32 and values [B, L] of a value-head model; a plain one's values are 0."""
    language_model = getattr(model, "pretrained_model", model)
    language_model = language_model.get_base_model() if hasattr(language_model, "peft_config") else language_model
    mask = inputs["attention_mask"]
    if "position_ids" in inspect.signature(language_model.forward).parameters and not bool(mask[:, 0].all()):
        # padded on the left: without these, models with learned positions read every token at the wrong place
        inputs = inputs | {"position_ids": mask.cumsum(-1).sub(1).clamp(min=0)}
    output = model(**inputs)
    if isinstance(output, tuple):
        logits, _, values = output
        return at_least_float32(logits), values
    return at_least_float32(output.logits), output.logits.new_zeros(mask.shape)


def response_columns(
    queries: Sequence[Tensor], responses: Sequence[Tensor], attention_mask: Tensor, masks: Sequence[Tensor] | None
) -> Tensor:
    """[B, L - 1]: 1 at the columns whose next token is of the response, and its own mask's entry where it has one."""
    columns = torch.zeros_like(attention_mask)[:, :-1]
    for row, (query, response) in enumerate(zip(queries, responses, strict=True)):
        start = int(attention_mask[row].argmax()) + len(query) - 1
        columns[row, start : start + len(response)] = 1 if masks is None else masks[row].to(columns)
    return columns


def refuse_uncalled(names: Sequence[str], what: str) -> None:
    """Raise UserError for a method of TRL that nothing here calls."""
    for name in names:
        require(name not in NOT_CALLED, f"{what} {name}, which is not called here: {NOT_CALLED.get(name)}")
