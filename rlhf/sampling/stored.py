"""Responses in a checkpoint, for a batch that is learned from after it."""

import json
from typing import Any

import torch
from torch import Tensor

from rlhf.data.parsing import Example
from rlhf.sampling.episode import Episode
from rlhf.sampling.responses import Responses


def stored(responses: Responses) -> dict[str, Any]:
    """The responses as `save_state` takes them: tensors on the CPU, everything else as JSON."""
    tensors = {name: x.cpu() for name, x in vars(responses).items() if isinstance(x, Tensor)}
    examples = [vars(example) for example in responses.examples]
    episodes = None if responses.episodes is None else [episode.plain() for episode in responses.episodes]
    return tensors | {"rows": json.dumps({"texts": responses.texts, "examples": examples, "episodes": episodes})}


def restored(state: dict[str, Any], device: torch.device) -> Responses:
    """What `stored` was given."""
    tensors = {name: x.to(device) for name, x in state.items() if isinstance(x, Tensor)}
    rows = json.loads(state["rows"])
    episodes = None if rows["episodes"] is None else [Episode.read(episode) for episode in rows["episodes"]]
    examples = [Example(**row | {"given": as_given(row["given"])}) for row in rows["examples"]]
    return Responses(**tensors, texts=rows["texts"], examples=examples, episodes=episodes)


def as_given(prompt: str | list[dict[str, Any]]) -> str | tuple[dict[str, Any], ...]:
    """A text, or the turns of a conversation, from JSON, which has no tuples."""
    return prompt if isinstance(prompt, str) else tuple(prompt)
