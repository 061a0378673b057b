"""What `PPOTrainer` and its `generate` and `step` are given, looked at before anything is made of it."""

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor

from rlhf.config.checks import require
from rlhf.policy.policy import Policy

MIGRATION = "docs/how-to/migrate-from-trl.md"


def refuse_newer(names: Collection[str]) -> None:
    """Raise UserError for arguments of PPOTrainer that it does not have here; TRL 0.12 and newer have others."""
    require(
        not names,
        f"PPOTrainer has no argument {', '.join(sorted(names))}; TRL 0.12 and newer have other ones than the classic "
        f"loop, and become a YAML file of rlhf ppo: {MIGRATION}",
    )


def require_tokenizer(tokenizer: Any) -> None:
    """Raise UserError for anything but a tokenizer with an EOS."""
    from transformers import PreTrainedTokenizerBase

    require(tokenizer is not None, "tokenizer is None; PPOTrainer needs the model's tokenizer")
    require(
        isinstance(tokenizer, PreTrainedTokenizerBase),
        f"tokenizer is a {type(tokenizer).__name__}; it must be the model's tokenizer: "
        "AutoTokenizer.from_pretrained gives it",
    )
    require(
        tokenizer.eos_token_id is not None,
        "tokenizer has no EOS, which ends responses; set tokenizer.eos_token to a token that it has",
    )


def require_known_tokens(name: str, rows: Sequence[Tensor], n_tokens: int) -> None:
    """Raise UserError for a token id that the model has no embedding for."""
    for number, row in enumerate(rows):
        largest = int(row.max())
        require(
            largest < n_tokens,
            f"{name}[{number}] holds token id {largest}, but the model knows {n_tokens} tokens; encode with its own "
            "tokenizer, or call resize_token_embeddings on it",
        )


def require_same_trained(policy: Policy) -> None:
    """Raise UserError where weights were frozen or unfrozen since the trainer was built, which it does not go by."""
    trained = {name for name, _ in policy.trainable}
    for name, parameter in policy.named_parameters():
        change = "frozen" if name in trained else "unfrozen"
        require(
            parameter.requires_grad == (name in trained),
            f"{name.removeprefix('wrapper.')} was {change} after PPOTrainer was built, which trains what required a "
            "gradient then; set requires_grad first and make a new PPOTrainer",
        )
