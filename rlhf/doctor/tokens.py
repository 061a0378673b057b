"""Special tokens: padding, and the end of a response."""

from typing import TYPE_CHECKING

from rlhf.data.chat import closing_token
from rlhf.data.examples import TokenizedExample
from rlhf.doctor.check import Check, failure, ok, warning
from rlhf.ppo.start import OTHER_TOKENIZER, embedding_rows, largest_token, open_end
from rlhf.ppo.trainer import PPOTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def check_padding_token(tokenizer: "PreTrainedTokenizerFast") -> Check:
    """Padding has a token of its own, or shares EOS without harm."""
    name = "padding token"
    if tokenizer.pad_token_id != tokenizer.eos_token_id:
        return ok(name, f"{tokenizer.pad_token!r} ({tokenizer.pad_token_id}), not EOS")
    return ok(name, f"{tokenizer.pad_token!r} is EOS too: harmless, every loss has an explicit mask")


def check_vocabulary(trainer: PPOTrainer, prompts: list[TokenizedExample]) -> Check:
    """Every token of the prompts, padding and EOS has a row in the embedding."""
    name, tokenizer = "vocabulary", trainer.tokenizer
    rows = embedding_rows(trainer.policy)
    largest = largest_token(tokenizer, prompts)
    if largest < rows:
        return ok(name, f"token ids up to {largest}, the model has {rows}")
    found = f"token id {largest} ({tokenizer.convert_ids_to_tokens(largest)!r}), the model has only {rows}"
    return failure(name, found, OTHER_TOKENIZER)


def check_end_of_turn(tokenizer: "PreTrainedTokenizerFast") -> Check:
    """The chat template closes the assistant's turn with a token, at which a response then ends."""
    name, closing = "end of turn", closing_token(tokenizer)
    if closing == tokenizer.eos_token_id:
        return ok(name, f"the chat template ends an answer with EOS {tokenizer.eos_token!r}, as SFT does")
    if closing is not None:
        token = tokenizer.convert_ids_to_tokens(closing)
        return ok(
            name, f"the chat template ends an answer with {token!r}, as SFT does; responses end there, and at EOS"
        )
    return warning(name, *open_end(tokenizer))
