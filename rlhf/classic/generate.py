"""Sampling through transformers' own `generate`, for lists of prompts of different lengths."""

import copy
import inspect
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from rlhf.config.checks import require
from rlhf.models.shape import vocabulary_size
from rlhf.sampling.batch import pad_left
from rlhf.sampling.folder_settings import ALTERS
from rlhf.sampling.stopping import as_ids, stop_token_ids

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


ONE_SAMPLE = ("num_beams", "num_beam_groups", "num_return_sequences")
BEAMS_ONLY = ("constraints", "force_words_ids", "diversity_penalty")
PROCESSORS = ("logits_processor", "prefix_allowed_tokens_fn", "custom_generate", "negative_prompt_ids")
ABSENT_IF_NONE = ("stopping_criteria", "generation_config")
MADE_HERE = ("input_ids", "inputs", "inputs_embeds", "attention_mask", "position_ids", "past_key_values", "labels")


class LengthSampler:
    """Draws a number of new tokens from min_value, min_value + 1, ... max_value - 1, each as likely as any other."""

    def __init__(self, min_value: int, max_value: int) -> None:
        require(
            min_value < max_value, f"min_value is {min_value}; it must be less than max_value {max_value}, never drawn"
        )
        self.min_value, self.max_value = min_value, max_value

    def __call__(self) -> int:
        return random.randrange(self.min_value, self.max_value)


class EndRecorder:
    """A stopping criterion for `generate` that notes how long each row was when it was complete.

    `generate` fills complete rows with pad tokens, which may be EOS: the row alone does not say where it ended.

    Args:
        criteria: Tells which rows of token ids are complete.
    """

    def __init__(self, criteria: Callable[..., Tensor]) -> None:
        self.criteria = criteria
        self.lengths: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        complete = self.criteria(input_ids, scores, **kwargs)
        if self.lengths is None:
            self.lengths = torch.full_like(complete, torch.iinfo(torch.long).max, dtype=torch.long)
        self.lengths = torch.where(complete, self.lengths.clamp(max=input_ids.shape[1]), self.lengths)
        return complete


class Sampler(NamedTuple):
    """How to sample: transformers' GenerationConfig, what ends a row, and further arguments of `generate`."""

    config: "GenerationConfig"
    criteria: Callable[..., Tensor]
    others: dict[str, Any]


def sampler(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", options: dict[str, Any]) -> Sampler:
    """What the arguments of `generate` come to, over the model's own defaults.

    An eos_token_id that is passed ends a row besides the tokenizer's EOS, in place of the model's own.
    Raises UserError for a name that transformers does not know, and for beams and several sequences per query: a step
    learns from one sample each.
    """
    from transformers import EosTokenCriteria, GenerationConfig, StoppingCriteriaList, StopStringCriteria

    options = {name: x for name, x in options.items() if x is not None or name not in ABSENT_IF_NONE}
    given = {"stopping_criteria": [], "generation_config": GenerationConfig()} | options
    criteria = StoppingCriteriaList(given.pop("stopping_criteria"))
    config = copy.deepcopy(given.pop("generation_config"))
    config.update(**model.generation_config.to_dict(), defaults_only=True)
    others = config.update(**given)
    require_known(model, others)
    for name in (*ONE_SAMPLE, *BEAMS_ONLY):
        value, only = getattr(config, name, None), "1" if name in ONE_SAMPLE else "leave it out"
        require(
            value in (None, 0.0) if name in BEAMS_ONLY else value in (None, 1),
            f"generate got {name}={value}; PPO learns from one sample per query: {only}",
        )
    passed = as_ids(options.get("eos_token_id", getattr(options.get("generation_config"), "eos_token_id", None)))
    if not passed:
        config.eos_token_id = stop_token_ids(model, tokenizer)
    elif max(passed) >= 0:  # -1 is how TRL's examples say that nothing ends a response
        config.eos_token_id = list(dict.fromkeys([*passed, tokenizer.eos_token_id]))
    known, pads = range(vocabulary_size(model)), (config.pad_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
    config.pad_token_id = next((token for token in pads if token in known), 0)  # which one does not matter
    criteria.append(EosTokenCriteria(config.eos_token_id))
    if config.stop_strings:
        criteria.append(StopStringCriteria(tokenizer, config.stop_strings))
    config.stop_strings, config.return_dict_in_generate = None, False
    return Sampler(config, criteria, others)


def sample_batch(model: "PreTrainedModel", queries: list[Tensor], sampler: Sampler) -> list[Tensor]:
    """One response to each query, through its EOS or stop string, without the query; queries are padded on the left."""
    ids, mask = pad_left(queries, sampler.config.pad_token_id)
    recorder = EndRecorder(sampler.criteria)
    with torch.no_grad():
        rows = model.generate(
            ids.to(model.device),
            attention_mask=mask.long().to(model.device),
            generation_config=sampler.config,
            stopping_criteria=[recorder],
            **sampler.others,
        )
    assert recorder.lengths is not None
    ends = recorder.lengths.clamp(max=rows.shape[1])
    return [row[ids.shape[1] : end] for row, end in zip(rows, ends, strict=True)]


def require_known(model: "PreTrainedModel", others: dict[str, Any]) -> None:
    """Raise UserError for arguments of `generate` that are neither settings nor arguments of transformers' own."""
    known = {*inspect.signature(model.generate).parameters, *inspect.signature(model.forward).parameters}
    for name in others:
        require(name not in MADE_HERE, f"generate got {name}; it is made here, from queries without padding")
        require(name in known, f"generate got {name}={others[name]!r}, which transformers does not know; leave it out")


def distribution_mismatch(sampler: Sampler, vocab_size: int, temperature: float) -> list[str]:
    """Settings that make `generate` draw from another distribution than softmax(logits / temperature).

    Where nothing is said, transformers decodes greedily, and samples from the 50 most likely tokens.
    """
    config = sampler.config
    top_k = 50 if config.top_k is None else config.top_k
    found = {
        f"do_sample={config.do_sample}": not config.do_sample,
        f"temperature={config.temperature}": (config.temperature or 1.0) != temperature,
        f"top_k={top_k}": 0 < top_k < vocab_size,
        f"top_p={config.top_p}": (config.top_p or 1.0) < 1,
        f"min_length={config.min_length}": (config.min_length or 0) > 0,
    }
    for name, neutral in ALTERS.items():
        value = getattr(config, name, None)
        found.setdefault(f"{name}={value}", value is not None and value not in neutral)
    found |= {name: bool(sampler.others.get(name)) for name in PROCESSORS}
    return [setting for setting, differs in found.items() if differs]
