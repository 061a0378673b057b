"""A trained reward model as a reward: one forward pass per completion."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from rlhf.data.chat import Tools, closing_token, prompt_ids, text_ids
from rlhf.data.messages import Prompt
from rlhf.data.rendering import Rendering
from rlhf.errors import UserError
from rlhf.rewards.turns import Conversation, NamedReward, as_turns, text_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

SETTINGS_FILE = "reward_model.json"

Said = str | Conversation
"""A prompt, or a completion, which is one turn."""


class Settings(NamedTuple):
    """What `rlhf reward` writes beside a model.

    Attributes:
        mean: of the raw scores on the reference samples.
        std: likewise.
        reference: which samples these were, in words.
        system_prompt: as in `Rendering`, which the model was trained with.
        as_chat: likewise; files without it are of models that have always read user turns.
        chat_template_kwargs: likewise.
        texts_only: whether all prompts in training were texts, so that the model has never seen a conversation.
    """

    mean: float = 0.0
    std: float = 1.0
    reference: str = ""
    system_prompt: str | None = None
    as_chat: bool = True
    chat_template_kwargs: Mapping[str, Any] = {}
    texts_only: bool = False

    @property
    def rendering(self) -> Rendering:
        """How the model is to see a prompt."""
        return Rendering(self.as_chat, self.system_prompt, self.chat_template_kwargs)

    def put(self, prompt: Said) -> Prompt:
        """The prompt as training put it: to a model that knows texts only, a question in a chat is its text.

        Raises ValueError for a conversation of which such a model could not read all.
        """
        if isinstance(prompt, str) or not self.texts_only:
            return self.rendering.put(prompt if isinstance(prompt, str) else tuple(prompt))
        said = [turn for turn in prompt if turn["role"] != "system"]
        if len(said) != 1:
            raise ValueError(
                f"the reward model was trained on texts and gets a conversation of {len(said)} turns; train it on "
                "conversations"
            )
        return str(said[0]["content"])


class RewardModel(NamedReward):
    """`(raw - mean) / std` with the score of a sequence-classification model, without gradients.

    `path` is what `rlhf reward` wrote, a folder or a hub repository: mean and std come from it, and prompt and
    completion become tokens by the function that made those of its training (the prompt as text or in the model's own
    chat template, all turns of it, then the completion, then the token that closes it). Or it is any hub model with
    one label: its raw score, of prompt and completion as a conversation in its chat template, or as a pair of texts if
    it has none (without segment ids; of a conversation each turn on a line). Runs on the accelerator, if any.

    Raises ValueError if the model cannot be loaded or has several labels, and, when called, for a text longer than
    its context. Fooled by whatever its training pairs did not show.
    """

    def __init__(self, path: str, *, batch_size: int = 16, trust_remote_code: bool = False) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size} must be at least 1")
        self.model, self.tokenizer = load_sequence_classifier(path, trust_remote_code)
        self.model.eval()
        self.batch_size = batch_size
        self.settings = read_settings(path)
        self.encode = _encoder(self.tokenizer, self.settings)

    def __call__(self, prompts: list[Said], completions: list[Said], **columns: Any) -> list[float]:
        tools = columns.get("tools") or [None] * len(prompts)
        ids = [self.encode(*row) for row in zip(prompts, completions, tools, strict=True)]
        mean, std, *_ = self.settings or Settings()
        return [(raw - mean) / std for raw in score_ids(self.model, ids, self.batch_size)]

    def explain(self, prompt: Said, completion: Said, **columns: Any) -> str:
        ids = self.encode(prompt, completion, columns.get("tools"))
        [raw] = score_ids(self.model, [ids], 1)
        if self.settings is None:
            return f"raw score {raw:.4f} of {len(ids)} tokens, not normalized"
        mean, std, reference, *_ = self.settings
        score = (raw - mean) / std
        return (
            f"raw score {raw:.4f} of {len(ids)} tokens; {abs(score):.2f} standard deviations "
            f"{'above' if score >= 0 else 'below'} the mean of {reference} ({mean:.4f}, std {std:.4f})"
        )


def load_sequence_classifier(
    path: str, trust_remote_code: bool = False
) -> "tuple[PreTrainedModel, PreTrainedTokenizerFast]":
    """Model and tokenizer; raises ValueError unless the model has one label."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from rlhf.models.load import default_device
    from rlhf.models.pretrained import load_pretrained
    from rlhf.models.tokenizer import load_tokenizer

    try:
        ours = read_settings(path) is not None
        trust = trust_remote_code
        tokenizer = load_tokenizer(path, trust) if ours else load_pretrained(AutoTokenizer, path, trust)
        model = load_pretrained(AutoModelForSequenceClassification, path, trust, use_safetensors=True)
    except UserError as error:
        raise ValueError(f"cannot load reward model {path!r} ({error})") from error
    n = model.config.num_labels
    if n != 1:
        raise ValueError(
            f"{path!r} has {n} labels; a reward model has 1 (the reward 'classifier' takes one of several)"
        )
    return model.to(default_device()), tokenizer


def read_settings(path: str) -> Settings | None:
    """The settings of what `rlhf reward` wrote, a folder, a run or a repository; None for any other model."""
    from rlhf.models.adapters import locate
    from rlhf.models.pretrained import resolve_model_path

    file = locate(resolve_model_path(path), SETTINGS_FILE)
    return None if file is None else Settings(**json.loads(file.read_text(encoding="utf-8")))


def score_ids(model: "PreTrainedModel", ids: list[list[int]], batch_size: int) -> list[float]:
    """Raw scores of token rows, right-padded, similar lengths together.

    On the right: GPT-2 numbers its positions from the left edge, so padding there would shift them. A score is what the
    model says of a row alone, without padding: that of the last token which is not the config's pad token.
    Raises ValueError for a row that is longer than the model's context.
    """
    import torch

    from rlhf.models.shape import context_length, vocabulary_size

    longest, vocabulary = context_length(model), vocabulary_size(model)
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    if ids and len(ids[order[-1]]) > longest:
        raise ValueError(f"prompt and completion have {len(ids[order[-1]])} tokens, the reward model takes {longest}")
    largest = max((token for row in ids for token in row), default=0)
    if largest >= vocabulary:
        raise ValueError(
            f"token id {largest} is beyond the {vocabulary} that the reward model knows; its tokenizer belongs to "
            "another model, or tokens were added without making room for them"
        )
    scores = [0.0] * len(ids)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        lengths = torch.tensor([len(ids[row]) for row in rows])
        width = int(lengths.max())
        # inference mode would leave tensors that cannot be trained with, in some caches
        with padding_for(model, [ids[row] for row in rows]) as pad, torch.no_grad():
            padded = torch.tensor([ids[row] + [pad] * (width - len(ids[row])) for row in rows])
            mask = (torch.arange(width) < lengths[:, None]).long()
            logits = model(input_ids=padded.to(model.device), attention_mask=mask.to(model.device)).logits
        for row, score in zip(rows, logits[:, 0].float().tolist(), strict=True):
            scores[row] = score
    return scores


@contextlib.contextmanager
def padding_for(model: "PreTrainedModel", rows: list[list[int]]) -> Iterator[int]:
    """The config's pad token; where it names none that the model knows, one for now that ends no row.

    transformers looks for the end of a row by it.
    """
    from rlhf.models.shape import text_config, vocabulary_size

    named, parts = model.config.pad_token_id, {id(part): part for part in (model.config, text_config(model))}
    known = named is not None and 0 <= named < vocabulary_size(model)
    ends = {row[-1] for row in rows if row}
    pad: int = named if known else next(token for token in range(len(ends) + 1) if token not in ends)
    before = [(part, getattr(part, "pad_token_id", None)) for part in parts.values()]
    try:
        for part, _ in before:
            part.pad_token_id = pad
        yield pad
    finally:
        for part, original in before:
            part.pad_token_id = original


def _encoder(tokenizer: "PreTrainedTokenizerFast", settings: Settings | None) -> Callable[..., list[int]]:
    """How this model wants prompt, completion and tools as token ids; what merely looks like EOS in them is text."""

    closing = None if settings is None else closing_token(tokenizer)

    def as_trained(prompt: Said, completion: Said, tools: Tools = None) -> list[int]:
        assert settings is not None
        given = settings.put(prompt)
        [ids] = settings.rendering.ids(tokenizer, [given], [None if isinstance(given, str) else tools])
        end = tokenizer.eos_token_id if isinstance(given, str) or closing is None else closing
        return [*ids, *text_ids(tokenizer, [text_of(completion)])[0], end]

    def as_conversation(prompt: Said, completion: Said, tools: Tools = None) -> list[int]:
        *turns, last = as_turns(prompt)
        begun = last["content"] if last["role"] == "assistant" else ""
        turns = turns if begun else [*turns, last]
        answered = [*turns, {"role": "assistant", "content": begun + text_of(completion)}]
        return prompt_ids(tokenizer, [answered], add_generation_prompt=False, tools=[tools])[0]

    def as_pair(prompt: Said, completion: Said, tools: Tools = None) -> list[int]:
        lines = "\n".join(turn["content"] for turn in as_turns(prompt))
        return tokenizer(lines, text_of(completion), split_special_tokens=True)["input_ids"]

    if settings is not None:
        return as_trained
    return as_pair if tokenizer.chat_template is None else as_conversation
