"""What rewards receive of rows and responses: what the model saw and generated."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlhf.data.examples import collate_columns

if TYPE_CHECKING:
    from rlhf.data.parsing import Example


def reward_inputs(
    examples: "Sequence[Example]", texts: Sequence[str]
) -> tuple[list[Any], list[Any], dict[str, list[Any]]]:
    """Prompts, completions and columns: turns where the model saw a conversation, else text."""
    rows = list(zip(examples, texts, strict=True))
    prompts = [list(example.turns) if example.is_conversation else example.prompt for example in examples]
    completions = [[{"role": "assistant", "content": s}] if example.is_conversation else s for example, s in rows]
    return prompts, completions, collate_columns(list(examples))
