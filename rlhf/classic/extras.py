"""Sampling helpers that scripts for TRL use beside the trainer."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlhf.classic.batch import id_rows, score_rows
from rlhf.classic.setup import causal_lm
from rlhf.config.checks import require

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase


def respond_to_batch(model: Any, queries: Tensor, txt_len: int = 20, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """txt_len sampled tokens after each query, whether or not EOS is among them: [B, P] -> [B, txt_len].

    From softmax(logits), whatever the model's generation config says.

    Args:
        model: A value-head model, or a plain one.
        queries: Rows of one length; there is no padding.
        txt_len: Tokens per response.
        top_k: Sample from this many most likely tokens; 0 takes all.
        top_p: Sample from the most likely tokens that together have this probability.
    """
    from transformers import GenerationConfig

    model = causal_lm(model)
    config = GenerationConfig(
        max_new_tokens=txt_len, min_new_tokens=txt_len, do_sample=True, top_k=top_k, top_p=top_p, pad_token_id=0
    )
    own, model.generation_config = model.generation_config, GenerationConfig()  # what is None is filled in from there
    try:
        with torch.no_grad():
            rows = model.generate(queries, attention_mask=torch.ones_like(queries), generation_config=config)
    finally:
        model.generation_config = own
    return rows[:, queries.shape[1] :]


class BestOfNSampler:
    """Samples several responses to each query and keeps the best: what PPO has to beat.

    Args:
        model: A value-head model, or a plain one.
        tokenizer: Decodes what was sampled.
        queries_to_scores: From texts, query and response together, to a number each.
        length_sampler: Draws max_new_tokens for each query.
        sample_size: Responses to each query.
        seed: For Python, NumPy and torch; None leaves them.
        n_candidates: How many of the responses are returned, the best one first.
        generation_config: For the model's `generate`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: "PreTrainedTokenizerBase",
        queries_to_scores: Callable[[list[str]], Sequence[float]],
        length_sampler: Callable[[], int],
        sample_size: int = 4,
        seed: int | None = None,
        n_candidates: int = 1,
        generation_config: "GenerationConfig | None" = None,
    ) -> None:
        from transformers import PreTrainedTokenizerBase, set_seed

        require(
            isinstance(tokenizer, PreTrainedTokenizerBase),
            f"tokenizer is a {type(tokenizer).__name__}; BestOfNSampler needs the model's tokenizer",
        )
        require(
            1 <= n_candidates <= sample_size,
            f"n_candidates is {n_candidates}; it must be from 1 to sample_size {sample_size}",
        )
        if seed is not None:
            set_seed(seed)
        self.model, self.tokenizer, self.queries_to_scores = model, tokenizer, queries_to_scores
        self.length_sampler, self.sample_size, self.n_candidates = length_sampler, sample_size, n_candidates
        self.gen_config = generation_config

    def generate(
        self,
        tokenized_query: Any,
        skip_special_tokens: bool = True,
        device: str | torch.device | None = None,
        **generation_kwargs: Any,
    ) -> list[list[str]]:
        """The n_candidates best texts for each query.

        Args:
            tokenized_query: One query (a list of ints or a tensor [L]) or a list of those.
            skip_special_tokens: Leave these out of the texts.
            device: Where the model is; None asks it.
            generation_kwargs: For `generate`, over generation_config.
        """
        is_single = torch.is_tensor(tokenized_query) or all(isinstance(token, int) for token in tokenized_query)
        queries = id_rows("tokenized_query", [tokenized_query] if is_single else tokenized_query)
        model = getattr(self.model, "pretrained_model", self.model)
        return [
            self._best(model, query.to(device or model.device), skip_special_tokens, generation_kwargs)
            for query in queries
        ]

    def _best(self, model: Any, query: Tensor, skip_special_tokens: bool, options: dict[str, Any]) -> list[str]:
        ids = query.repeat(self.sample_size, 1)
        settings = {"generation_config": self.gen_config, "max_new_tokens": int(self.length_sampler())} | options
        with torch.no_grad():
            rows = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=skip_special_tokens)
        scores = [float(score) for row in score_rows(self.queries_to_scores(texts)) for score in row]
        require(
            len(scores) == len(texts) and all(map(math.isfinite, scores)),
            f"queries_to_scores returned {scores}; it must be {len(texts)} finite numbers, one per text",
        )
        return [texts[row] for row in torch.tensor(scores).topk(self.n_candidates).indices.tolist()]
