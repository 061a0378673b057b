"""What rewards receive of rows and responses: what the model saw and generated."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlhf.data.examples import collate_columns

if TYPE_CHECKING:
    from rlhf.data.parsing import Example
    from rlhf.sampling.episode import Episode
    from rlhf.sampling.responses import Responses


def reward_inputs(
    examples: "Sequence[Example]", texts: Sequence[str], episodes: "Sequence[Episode] | None" = None
) -> tuple[list[Any], list[Any], dict[str, list[Any]]]:
    """Prompts, completions and columns: turns where the model saw a conversation, else text.

    With an environment a completion is all turns of an episode, and the column `episode` the episode itself.
    """
    rows = list(zip(examples, texts, strict=True))
    prompts = [list(example.turns) if example.is_conversation else example.prompt for example in examples]
    completions = [[{"role": "assistant", "content": s}] if example.is_conversation else s for example, s in rows]
    columns = collate_columns(list(examples))
    if episodes is not None:
        completions, columns = [list(episode.messages) for episode in episodes], columns | {"episode": list(episodes)}
    return prompts, completions, columns


def columns_of(responses: "Responses", row: int) -> dict[str, Any]:
    """What one response gives a reward to explain its score by."""
    columns = responses.examples[row].columns
    return columns if responses.episodes is None else columns | {"episode": responses.episodes[row]}
