"""Special tokens: padding, and the end of a response."""

from typing import TYPE_CHECKING

from rlhf.data.examples import TokenizedExample
from rlhf.doctor.check import Check, failure, ok, warning
from rlhf.ppo.trainer import PPOTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PROBE = ({"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"})


def check_padding_token(tokenizer: "PreTrainedTokenizerFast") -> Check:
    """Padding has a token of its own, or shares EOS without harm."""
    name = "padding token"
    if tokenizer.pad_token_id != tokenizer.eos_token_id:
        return ok(name, f"{tokenizer.pad_token!r} ({tokenizer.pad_token_id}), not EOS")
    return ok(name, f"{tokenizer.pad_token!r} is EOS too: harmless, every loss has an explicit mask")


def check_vocabulary(trainer: PPOTrainer, prompts: list[TokenizedExample]) -> Check:
    """Every token of the prompts, padding and EOS has a row in the embedding."""
    name, tokenizer = "vocabulary", trainer.tokenizer
    rows = trainer.policy.language_model.get_input_embeddings().weight.shape[0]
    used = {tokenizer.pad_token_id, tokenizer.eos_token_id}.union(*(prompt.prompt_ids for prompt in prompts))
    if max(used) < rows:
        return ok(name, f"token ids up to {max(used)}, the model has {rows}")
    return failure(
        name,
        f"token id {max(used)} ({tokenizer.convert_ids_to_tokens(max(used))!r}), the model has only {rows}",
        "use the tokenizer that belongs to the model, or resize the model's embeddings and train them",
    )


def check_end_of_turn(tokenizer: "PreTrainedTokenizerFast") -> Check:
    """The chat template closes the assistant's turn with the token that ends a response."""
    name = "end of turn"
    rendered = tokenizer.apply_chat_template(list(PROBE), tokenize=False)
    tail = rendered.rpartition(PROBE[1]["content"])[2].strip()
    if tail.startswith(tokenizer.eos_token):
        return ok(name, f"the chat template ends an answer with EOS {tokenizer.eos_token!r}, as SFT does")
    closing = f"with {tail!r}" if tail else "with nothing"
    return warning(
        name,
        f"the chat template ends an answer {closing}, not with EOS {tokenizer.eos_token!r}",
        "a model tuned on this template will not end its responses: set the tokenizer's eos_token to what the template "
        "writes, or name it in sampling.stop",
    )
