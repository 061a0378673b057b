"""Rollouts on disk: every number of a few responses, for the report and to replay a minibatch that went wrong."""

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rlhf.config.secrets import mask_secrets
from rlhf.data.parsing import Example
from rlhf.errors import UserError
from rlhf.ppo.rollout import Rollout
from rlhf.runs.files import read_jsonl, staged
from rlhf.sampling.episode import Episode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TENSORS_FILE, ROWS_FILE = "rollout.safetensors", "rows.jsonl"
TENSOR_FIELDS = [field.name for field in fields(Rollout) if field.name not in ("texts", "examples", "episodes")]
OPTIONAL = ("sampler_logprobs", "turn_rewards")
"""Not everybody says how probable its samples were, nor has everybody an environment."""


def save_rollout(
    folder: Path,
    rollout: Rollout,
    tokenizer: "PreTrainedTokenizerFast",
    more_columns: list[dict[str, Any]] | None = None,
    **more_tensors: Tensor,
) -> None:
    """Write rollout.safetensors (every tensor of the rollout) and rows.jsonl (a row per response) into a new folder.

    A row holds prompt, response, the response's tokens as text, the columns of its data row, and what
    `more_columns` has for it.
    """
    from safetensors.torch import save_file

    known = {name: getattr(rollout, name) for name in TENSOR_FIELDS} | more_tensors
    tensors = {name: x for name, x in known.items() if x is not None}
    with staged(folder) as staging:
        save_file({name: x.detach().cpu().contiguous() for name, x in tensors.items()}, staging / TENSORS_FILE)
        with open(staging / ROWS_FILE, "w", encoding="utf-8") as file:
            for row, example in enumerate(rollout.examples):
                entry = {
                    "prompt": example.prompt,
                    "response": rollout.texts[row],
                    "tokens": [tokenizer.decode([token]) for token in rollout.response_ids(row)],
                    "messages": mask_secrets(list(example.turns)),  # none of a text
                    "columns": example.columns,
                    "origin": example.origin,
                    **({"episode": rollout.episodes[row].plain()} if rollout.episodes else {}),
                    **(more_columns[row] if more_columns else {}),
                }
                file.write(json.dumps(entry, ensure_ascii=False, default=str) + "\n")


def load_rollout(folder: Path) -> Rollout:
    """What `save_rollout` wrote; raises UserError if a file is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(folder / TENSORS_FILE)
        rows = read_jsonl(folder / ROWS_FILE)
        return Rollout(
            **{name: tensors[name] for name in TENSOR_FIELDS if name not in OPTIONAL},
            sampler_logprobs=tensors.get("sampler_logprobs"),
            turn_rewards=tensors.get("turn_rewards"),
            episodes=[Episode.read(row["episode"]) for row in rows] if "episode" in rows[0] else None,
            texts=[row["response"] for row in rows],
            examples=[
                Example(
                    tuple(row["messages"]) or row["prompt"],
                    row["columns"].get("reference"),
                    row["columns"],
                    row["origin"],
                )
                for row in rows
            ],
        )
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{folder} holds no rollout that can be read ({type(error).__name__}: {error})") from error
