"""The state of a run in two files without pickles: tensors in safetensors, everything else in JSON."""

import contextlib
import json
import math
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

# Marks in the JSON file for what JSON lacks; a dict with such keys, or keys that are no strings, becomes pairs.
TENSOR, TUPLE, FLOAT, PAIRS = "$tensor", "$tuple", "$float", "$dict"


def save_state(folder: Path, name: str, state: Any) -> None:
    """Write nested dicts, lists, tuples, scalars and tensors as NAME.safetensors and NAME.json into a folder.

    `load_state` gives the same back bit for bit; every tensor comes back contiguous, on the CPU, and shares memory with
    no other. Keys are strings or integers; a subclass of dict comes back as a dict. Raises TypeError, naming the
    place, for any other type.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    text = json.dumps(_encode(state, "", tensors), allow_nan=False, ensure_ascii=False, indent=1)
    save_file(_without_sharing(tensors), folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def load_state(folder: Path, name: str) -> Any:
    """Read what `save_state` wrote; raises UserError, naming the file, when one is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file, tensor_file = folder / f"{name}.json", folder / f"{name}.safetensors"
    try:
        encoded = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}); the checkpoint is damaged or incomplete") from error
    try:
        tensors = load_file(tensor_file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{tensor_file} cannot be read ({error}); the checkpoint is damaged or incomplete") from error
    try:
        state = _decode(encoded, tensors)
    except (KeyError, TypeError, ValueError, struct.error) as error:
        raise UserError(f"{file} does not fit {tensor_file.name} ({error!r}); one of them is damaged") from error
    if tensors:
        raise UserError(f"{tensor_file}: tensor {min(tensors)!r} has no place in {file.name}; one of them is damaged")
    return state


def rng_state() -> dict[str, Any]:
    """The global random generators of this process: Python, NumPy, torch on the CPU and on every CUDA device."""
    import numpy
    import torch

    twister = numpy.random.get_state(legacy=False)
    key = torch.from_numpy(twister["state"]["key"].astype("int64"))  # torch cannot pickle uint32 to other ranks
    return {
        "python": random.getstate(),
        "numpy": {**twister, "state": {**twister["state"], "key": key}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_rng_state(state: dict[str, Any]) -> None:
    """Set the global random generators to what `rng_state` returned; CUDA devices that are not there are left out."""
    import numpy
    import torch

    random.setstate(state["python"])
    twister = state["numpy"]
    key = twister["state"]["key"].numpy().astype("uint32")
    numpy.random.set_state({**twister, "state": {**twister["state"], "key": key}})
    torch.set_rng_state(state["torch"])
    for device, generator in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(generator, device)


@contextlib.contextmanager
def untouched_random_state() -> Iterator[None]:
    """Whatever draws from the global random generators within this context, they are afterwards as they were."""
    state = rng_state()
    try:
        yield
    finally:
        restore_rng_state(state)


def _encode(value: Any, place: str, tensors: "dict[str, Tensor]") -> Any:
    """What JSON holds for a value; its tensors are added to `tensors` under the names that the JSON refers to."""
    from torch import Tensor

    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {FLOAT: struct.pack(">d", value).hex()}
    if isinstance(value, Tensor):
        name = place or "/"
        while name in tensors:  # {"a/b": x, "a": {"b": y}}
            name += "'"
        tensors[name] = value
        return {TENSOR: name}
    if type(value) in (list, tuple):
        items = [_encode(item, f"{place}/{index}", tensors) for index, item in enumerate(value)]
        return items if type(value) is list else {TUPLE: items}
    if isinstance(value, dict) and all(type(key) in (str, int) for key in value):
        pairs = [(key, _encode(item, f"{place}/{key}", tensors)) for key, item in value.items()]
        plain = all(type(key) is str and not key.startswith("$") for key in value)
        return dict(pairs) if plain else {PAIRS: pairs}
    raise TypeError(f"{place or '/'}: {type(value).__name__} cannot be saved: {value!r:.80}")


def _decode(value: Any, tensors: "dict[str, Tensor]") -> Any:
    """The inverse of `_encode`; takes the tensors that it uses out of `tensors`."""
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    marks = [key for key in value if key.startswith("$")]
    if not marks:
        return {key: _decode(item, tensors) for key, item in value.items()}
    ((mark, content),) = value.items()
    if mark == TENSOR:
        return tensors.pop(content)
    if mark == TUPLE:
        return tuple(_decode(item, tensors) for item in content)
    if mark == FLOAT:
        return struct.unpack(">d", bytes.fromhex(content))[0]
    if mark == PAIRS:
        return {key: _decode(item, tensors) for key, item in content}
    raise ValueError(f"unknown mark {mark}")


def _without_sharing(tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """The tensors detached and contiguous, with a copy of each that shares memory with an earlier one."""
    separate, seen = {}, set()
    for name, tensor in tensors.items():
        own = tensor.detach().contiguous()
        if own.untyped_storage().data_ptr() in seen:
            own = own.clone()
        seen.add(own.untyped_storage().data_ptr())
        separate[name] = own
    return separate


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
