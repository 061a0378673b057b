"""Tokenizers: loaded with all that PPO needs, or trained from texts."""

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rlhf.errors import UserError
from rlhf.models.pretrained import load_pretrained
from rlhf.models.shape import vocabulary_size

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

PAD, EOS = "<|pad|>", "<|eos|>"
PLAIN_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '\\n' }}{% endif %}{% endfor %}"
)
"""For tokenizers without a chat template: every turn on its own line, the assistant's closed by EOS.

BOS comes first where the tokenizer itself would put it (Llama does, GPT-2 does not)."""

CODE_PIECES = r"\n *| ?[A-Z]?[a-z]+| ?[A-Z]+|[0-9]| ?[^\sA-Za-z0-9]+|\s+"
"""Where words may not be merged across: a line break with its indent, the humps of camelCase, digits, punctuation."""

RESERVED_PAD_TOKENS = ("<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "[PAD]")


def load_tokenizer(
    name_or_path: str, trust_remote_code: bool = False, gguf_file: str | None = None
) -> "PreTrainedTokenizerFast":
    """The tokenizer of a model, with a pad token and a chat template even where its authors set none.

    The pad token is a reserved one where the vocabulary has it, else EOS (masks are explicit throughout, so that
    this is safe). Raises UserError as `load_pretrained` does.
    """
    from transformers import AutoTokenizer

    tokenizer = load_pretrained(AutoTokenizer, name_or_path, trust_remote_code, gguf_file)
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"the tokenizer of {name_or_path!r} has no EOS token; PPO needs one to know where a response ends"
        )
    if tokenizer.pad_token_id is None:
        vocabulary = tokenizer.get_vocab()
        tokenizer.pad_token = next((token for token in RESERVED_PAD_TOKENS if token in vocabulary), tokenizer.eos_token)
    if tokenizer.chat_template is None:
        adds_bos = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
        tokenizer.chat_template = ("{{ bos_token }}" if adds_bos else "") + PLAIN_CHAT_TEMPLATE
    return tokenizer


def require_known_tokens(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast", rows: Iterable[list[int]]
) -> None:
    """Raise UserError for a token, of some rows, EOS or pad, that is beyond the rows of the model's embedding."""
    largest = max(itertools.chain([tokenizer.eos_token_id, tokenizer.pad_token_id or 0], *rows))
    known = vocabulary_size(model)
    if largest >= known:
        raise UserError(
            f"token {tokenizer.convert_ids_to_tokens(largest)!r} has the id {largest}, but the model knows {known} "
            "tokens only, 0 and up: the tokenizer belongs to another model, or tokens were added without "
            "resize_token_embeddings"
        )


def train_tokenizer(texts: list[str], vocab_size: int) -> "PreTrainedTokenizerFast":
    """A byte-level BPE tokenizer (no unknown token, any text round-trips) with distinct pad and EOS tokens."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CODE_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        chat_template=PLAIN_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
