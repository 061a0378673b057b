"""A text classifier with several labels as a reward: sentiment, toxicity, topic, language."""

import difflib
from typing import TYPE_CHECKING, Any, Literal

from rlhf.errors import UserError
from rlhf.rewards.contract import LogMetric
from rlhf.rewards.turns import NamedReward, text_of

if TYPE_CHECKING:
    from torch import Tensor

OUTPUTS = ("probability", "logit", "log_odds")
ENDLESS = 1_000_000  # a tokenizer that knows no limit says a larger number


class Classifier(NamedReward):
    """Probability, logit or log-odds that a sequence-classification model gives one label of the completion.

    `output` is the probability of `label` (softmax over the labels; a sigmoid for a model whose labels do not exclude
    each other), its raw logit, or its log-odds, log(p / (1 - p)). Log-odds and logits grow where a probability is
    flat, close to 0 or 1. `label` is a name in the model's config or a number. `with_prompt` has prompt and completion
    read as one text, as a sentiment of "the movie was" needs it.

    Texts are tokenized by the model's own tokenizer and cut at the end at `max_length` tokens (by default what the
    model takes); the share of those is the metric `classifier_truncated`. Runs on the accelerator, if any, in `dtype`.

    Raises ValueError if the model cannot be loaded, has one label, or not this one. Fooled by the words that the
    label's training texts have in common: a sentiment by "great" over and over.
    """

    def __init__(
        self,
        path: str,
        label: str | int,
        *,
        output: Literal["probability", "logit", "log_odds"] = "probability",
        with_prompt: bool = False,
        batch_size: int = 32,
        max_length: int | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        trust_remote_code: bool = False,
    ) -> None:
        if output not in OUTPUTS:
            raise ValueError(f"output {output!r} must be one of {', '.join(OUTPUTS)}")
        if batch_size < 1 or (max_length is not None and max_length < 1):
            raise ValueError(f"batch_size {batch_size} and max_length {max_length} must be at least 1")
        if dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"dtype {dtype!r} must be float32, bfloat16 or float16")
        self.model, self.tokenizer = _load(path, dtype, trust_remote_code)
        self.label = _number_of(label, self.model.config.id2label, path)
        if self.model.config.problem_type == "regression" and output != "logit":
            raise ValueError(f"{path!r} is a regression, whose outputs are no {output}; set output: logit")
        self.output, self.with_prompt, self.batch_size = output, with_prompt, batch_size
        longest = _longest(self.model, self.tokenizer)
        if max_length is not None and max_length > longest:
            raise ValueError(f"max_length {max_length} is more than the {longest} tokens that {path!r} takes")
        self.max_length = max_length or longest

    def __call__(
        self, prompts: list[Any], completions: list[Any], log_metric: LogMetric | None = None, **columns: Any
    ) -> list[float]:
        texts = [self._text(prompt, said) for prompt, said in zip(prompts, completions, strict=True)]
        scores, cut = self.scores(texts)
        if log_metric and texts:
            log_metric(f"{self.__name__}_truncated", cut / len(texts))
        return scores

    def explain(self, prompt: Any, completion: Any, **columns: Any) -> str:
        text = self._text(prompt, completion)
        [score], cut = self.scores([text])
        name = self.model.config.id2label[self.label]
        return f"{self.output} {score:.4f} of {name!r}" + (f", first {self.max_length} tokens" if cut else "")

    def scores(self, texts: list[str]) -> tuple[list[float], int]:
        """The score of each text, similar lengths together, and how many of them were cut."""
        import torch

        encoded = self._ids(texts)
        texts = [text if ids else "." for text, ids in zip(texts, encoded, strict=True)]  # it must read something
        cut = sum(len(ids) > self.max_length for ids in encoded)
        order = sorted(range(len(texts)), key=lambda row: len(encoded[row]))
        scores = [0.0] * len(texts)
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            batch = self.tokenizer(
                [texts[row] for row in rows],
                truncation=True,
                max_length=self.max_length,
                padding=True,
                padding_side="right",
                split_special_tokens=True,
                return_tensors="pt",
            ).to(self.model.device)
            with torch.inference_mode():
                logits = self.model(**batch).logits.float()
            for row, score in zip(rows, self.outputs(logits).tolist(), strict=True):
                scores[row] = score
        return scores, cut

    def outputs(self, logits: "Tensor") -> "Tensor":
        """The output for the label, [B], from the logits of all labels [B, labels]."""
        import torch

        mine = logits[:, self.label]
        if self.output == "logit":
            return mine
        if self.model.config.problem_type == "multi_label_classification":
            log_odds = mine
        else:  # log(p / (1 - p)) = its logit - the log-sum-exp of the others
            others = [number for number in range(logits.shape[1]) if number != self.label]
            log_odds = mine - torch.logsumexp(logits[:, others], dim=-1)
        return log_odds if self.output == "log_odds" else torch.sigmoid(log_odds)

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, truncation=False, split_special_tokens=True)["input_ids"] if texts else []

    def _text(self, prompt: Any, completion: Any) -> str:
        if not self.with_prompt:
            return text_of(completion)
        between = "" if isinstance(prompt, str) else "\n"
        return text_of(prompt) + between + text_of(completion)


def _load(path: str, dtype: str, trust_remote_code: bool) -> tuple[Any, Any]:
    """Model and tokenizer, with a pad token that both agree on."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from rlhf.models.load import default_device
    from rlhf.models.pretrained import load_pretrained
    from rlhf.models.shape import vocabulary_size

    try:
        tokenizer = load_pretrained(AutoTokenizer, path, trust_remote_code)
        model = load_pretrained(AutoModelForSequenceClassification, path, trust_remote_code, use_safetensors=True)
    except UserError as error:
        raise ValueError(f"cannot load classifier {path!r} ({error})") from error
    if model.config.num_labels < 2:
        raise ValueError(f"{path!r} has one label; use the reward 'reward_model' for it")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    pad, known = tokenizer.pad_token_id, vocabulary_size(model)
    if pad is None or pad >= known:
        raise ValueError(
            f"the tokenizer of {path!r} has the pad token {tokenizer.pad_token!r} ({pad}), none of the {known} tokens "
            "that the model knows; give it another pad_token"
        )
    model.config.pad_token_id = tokenizer.pad_token_id
    return model.to(default_device(), getattr(torch, dtype)).eval(), tokenizer


def _number_of(label: str | int, names: dict[int, str], path: str) -> int:
    """The number of a label; raises ValueError, with the closest name, for one that is not there."""
    if isinstance(label, int) and not isinstance(label, bool) and label in names:
        return label
    number = next((number for number, name in names.items() if name == label), None)
    if number is None:
        close = difflib.get_close_matches(str(label), names.values(), n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        shown = ", ".join(list(names.values())[:20])
        raise ValueError(f"label {label!r} is none of {path!r}: {hint}it has {shown}")
    return number


def _longest(model: Any, tokenizer: Any) -> int:
    """The tokens that a text may have: what tokenizer and model both take."""
    positions = getattr(model.config, "max_position_embeddings", None) or ENDLESS
    if "roberta" in model.config.model_type:  # their positions begin after that of the padding
        positions -= model.config.pad_token_id + 1
    return int(min(positions, tokenizer.model_max_length))
