"""The files of a checkpoint: where they are, in a folder or on the hub, and the tensors in them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.config.checks import require
from rlhf.errors import UserError, first_line

if TYPE_CHECKING:
    from torch import Tensor

SAFE, PICKLE = ".safetensors", ".bin"
NOT_THERE = "is neither the folder of a model nor a reachable hub model"
PICKLE_HELP = "a pickle; to read it all the same (tensors only, no code in it is run) pass"


def locate(source: str, filename: str) -> Path | None:
    """A file of a folder or hub repository; None where it is missing.

    Raises UserError when there is no such repository, or no way to it.
    """
    from transformers.utils import cached_file

    try:
        found = cached_file(source, filename, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        raise UserError(f"{source!r} {NOT_THERE} ({first_line(error)})") from error
    return None if found is None else Path(found)


def head_files(source: str, allow_pickle: bool) -> list[Path]:
    """The files of a model that may hold a value head: one, or those shards whose index says so."""
    for stem, suffix in (("model", SAFE), ("pytorch_model", PICKLE)):
        whole = locate(source, stem + suffix)
        index = None if whole else locate(source, f"{stem}{suffix}.index.json")
        if whole or index:
            require(
                suffix == SAFE or allow_pickle,
                f"{source}: {stem}{suffix} is {PICKLE_HELP} use_safetensors=False (or allow_pickle=True)",
            )
        if whole:
            return [whole]
        if index:
            shards = {
                file for tensor, file in json.loads(index.read_text())["weight_map"].items() if "v_head" in tensor
            }
            found = {shard: locate(source, shard) for shard in sorted(shards)}
            for shard, file in found.items():
                require(file is not None, f"{source}: {index.name} names {shard}, which is missing")
            return [file for file in found.values() if file]
    return []


def read_tensors(file: Path, part: str = "") -> dict[str, "Tensor"]:
    """The tensors of a file whose names contain `part`; raises UserError for a file that is damaged."""
    import torch
    from safetensors import safe_open

    try:
        if file.suffix == SAFE:
            with safe_open(file, "pt") as stored:
                return {name: stored.get_tensor(name) for name in stored.keys() if part in name}  # noqa: SIM118
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling a damaged file can raise any
        raise UserError(f"{file} cannot be read ({first_line(error)}); it is damaged or no checkpoint") from error
    return {name: tensor for name, tensor in tensors.items() if part in name}
