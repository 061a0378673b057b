"""The files of a checkpoint: where they are, in a folder or on the hub, and the tensors in them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from rlhf.config.checks import require
from rlhf.errors import UserError, first_line
from rlhf.models.pretrained import resolve_model_path
from rlhf.runs.hub import look_for_hub

if TYPE_CHECKING:
    from torch import Tensor

SAFE, PICKLE = ".safetensors", ".bin"
ADAPTER_CONFIG = "adapter_config.json"
NOT_THERE = "is neither the folder of a model nor a reachable hub model"
PICKLE_HELP = "a pickle; to read it all the same (tensors only, no code in it is run) pass"
HUB_OPTIONS = ("token", "revision", "cache_dir", "local_files_only", "force_download", "subfolder")


class Source(NamedTuple):
    """Where a checkpoint is read from.

    Attributes:
        name: Absolute path of a folder, or hub name.
        allow_pickle: Whether pickles are read too.
        hub: Which revision, with which token, ...: options of `from_pretrained` that hold for all of its files.
    """

    name: str
    allow_pickle: bool
    hub: dict[str, Any]

    @classmethod
    def of(cls, name_or_path: str | Path, allow_pickle: bool, options: Mapping[str, Any]) -> Self:
        """A folder or hub name, with those of the options that concern its files."""
        hub = {name: options[name] for name in HUB_OPTIONS if name in options}
        return cls(resolve_model_path(str(name_or_path)), allow_pickle, hub)

    def locate(self, filename: str) -> Path | None:
        """A file of the folder or repository; None where it is missing.

        Raises UserError when there is no such repository, or no way to it.
        """
        from rlhf.models.private_names import cached_file

        look_for_hub()

        try:
            found = cached_file(self.name, filename, _raise_exceptions_for_missing_entries=False, **self.hub)
        except OSError as error:
            raise UserError(f"{self.name!r} {NOT_THERE} ({first_line(error)})") from error
        return None if found is None else Path(found)


def head_files(source: Source) -> list[Path]:
    """The files of a model that may hold a value head: one, or those shards whose index says so."""
    for stem, suffix in (("model", SAFE), ("pytorch_model", PICKLE)):
        whole = source.locate(stem + suffix)
        index = None if whole else source.locate(f"{stem}{suffix}.index.json")
        if whole or index:
            require(
                suffix == SAFE or source.allow_pickle,
                f"{source.name}: {stem}{suffix} is {PICKLE_HELP} use_safetensors=False (or allow_pickle=True)",
            )
        if whole:
            return [whole]
        if index:
            shards = {
                file for tensor, file in json.loads(index.read_text())["weight_map"].items() if "v_head" in tensor
            }
            found = {shard: source.locate(shard) for shard in sorted(shards)}
            for shard, file in found.items():
                require(file is not None, f"{source.name}: {index.name} names {shard}, which is missing")
            return [file for file in found.values() if file]
    return []


def adapter_file(source: Source) -> Path:
    """The weights of PEFT adapters; raises UserError where there are none, or only a pickle that is not to be read."""
    file = source.locate(f"adapter_model{SAFE}") or source.locate(f"adapter_model{PICKLE}")
    require(file is not None, f"{source.name} holds no adapter_model{SAFE}")
    assert file is not None
    require(
        file.suffix == SAFE or source.allow_pickle,
        f"{source.name}: {file.name} is {PICKLE_HELP} use_safetensors=False",
    )
    return file


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
