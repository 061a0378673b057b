"""The sizes of a model, whatever its config calls them."""

from typing import TYPE_CHECKING, Any

from torch import nn

from rlhf.config.checks import LARGEST

if TYPE_CHECKING:
    from transformers import PreTrainedModel

UNLIMITED = LARGEST
"""Context of a model that names none: a recurrent one, or one whose positions are differences (ALiBi)."""
CONTEXT_NAMES = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx", "context_length",
    "max_target_positions", "max_sequence_length", "max_context_length",
)  # fmt: skip


def context_length(model: "PreTrainedModel") -> int:
    """Longest sequence the model has positions for, in tokens; UNLIMITED where its config names no limit.

    RoBERTa counts positions from behind its pad token's, so that it takes two less than it has. With LongRoPE a row
    would be read in another way as soon as any row of its batch is longer than `original_max_position_embeddings`.
    """
    settings = text_config(model)
    named = [getattr(settings, name, None) for name in CONTEXT_NAMES]
    limit = next((int(value) for value in named if value is not None and value > 0), UNLIMITED)
    limit = min(limit, _context_before_longrope(settings))
    for name, module in model.named_modules():
        is_table = name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
        if is_table and module.padding_idx is not None:
            limit = min(limit, module.num_embeddings - module.padding_idx - 1)
    return limit


def _context_before_longrope(settings: Any) -> int:
    """Up to where LongRoPE (Phi-3) has one set of factors; UNLIMITED for every other model."""
    scaling = getattr(settings, "rope_parameters", None) or getattr(settings, "rope_scaling", None) or {}
    kinds = [scaling, *(part for part in scaling.values() if isinstance(part, dict))]  # one for all layers, or by kind
    if not any(kind.get("rope_type", kind.get("type")) == "longrope" for kind in kinds):
        return UNLIMITED
    original = [kind.get("original_max_position_embeddings") for kind in kinds]
    known = [int(value) for value in (*original, getattr(settings, "original_max_position_embeddings", None)) if value]
    return min(known, default=UNLIMITED)


def in_tokens(context: int) -> str:
    """A context length in words."""
    return "any number of" if context >= UNLIMITED else str(context)


def text_config(model: "PreTrainedModel") -> Any:
    """The config of the part that reads and writes text: a multimodal model has it in another one."""
    return model.config.get_text_config(decoder=True)


def vocabulary_size(model: "PreTrainedModel") -> int:
    """Token ids that the model knows: 0 to this, less one."""
    return model.get_input_embeddings().weight.shape[0]
