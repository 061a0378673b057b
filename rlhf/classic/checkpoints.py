"""TRL's value-head checkpoints: read strictly, written so that TRL reads the same numbers.

Layouts: a causal language model whose weight files also hold `v_head.summary.weight` and `.bias` (one file or shards),
or a folder of PEFT adapters with the head alone in a second file. TRL wrote that file as a pickle, pytorch_model.bin;
here it is model.safetensors, which TRL looks for first.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.classic.weight_files import NOT_THERE, PICKLE, PICKLE_HELP, SAFE, head_files, locate, read_tensors
from rlhf.config.checks import require
from rlhf.errors import UserError, first_line
from rlhf.models.pretrained import resolve_model_path
from rlhf.policy.value_head import CRITIC_ADAPTER

if TYPE_CHECKING:
    from torch import Tensor

HEAD = ("v_head.summary.weight", "v_head.summary.bias")
ADAPTER_CONFIG = "adapter_config.json"


def save_checkpoint(model: Any, folder: str | Path, **options: Any) -> None:
    """Write a value-head model, ours or TRL's, into a folder, which is made if need be; no pickles.

    A plain model and its head go into one model.safetensors (TRL cannot read local shards), a PEFT model's adapters
    into their own file and the head into model.safetensors.

    Args:
        model: The value-head model; of a `Policy`, its `wrapper`.
        folder: Files of the same names are replaced.
        options: For the `save_pretrained` of transformers or PEFT.

    Raises UserError for a critic with adapters of its own: TRL's layout has no place for them.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    head = {f"v_head.{name}": p.detach().cpu().contiguous() for name, p in model.v_head.named_parameters()}
    if hasattr(model.pretrained_model, "peft_config"):
        require(
            CRITIC_ADAPTER not in model.pretrained_model.peft_config,
            "the critic has adapters of its own, which TRL's layout cannot hold; "
            "save the policy with rlhf.policy.files",
        )
        model.pretrained_model.save_pretrained(str(folder), **options)
        save_file(head, folder / f"model{SAFE}", metadata={"format": "pt"})
    else:
        weights = options.pop("state_dict", None) or model.pretrained_model.state_dict()
        one_file = {"max_shard_size": "1000GB"} | options
        model.pretrained_model.save_pretrained(str(folder), state_dict=weights | head, **one_file)


def read_checkpoint(
    source: str, *model_args: Any, allow_pickle: bool, is_trainable: bool = True, **options: Any
) -> tuple[Any, dict[str, "Tensor"] | None]:
    """A plain or PEFT model, and the value head that is stored with it (see `read_head`)."""
    has_adapters = locate(source, ADAPTER_CONFIG) is not None
    require(has_adapters or locate(source, "config.json") is not None, f"{source!r} {NOT_THERE}")
    head = read_head(source, allow_pickle)
    options["use_safetensors"] = None if allow_pickle else True
    if has_adapters:
        return _read_adapters(source, model_args, options, is_trainable), head
    model, unexpected = _read_plain(source, model_args, options)
    lost = sorted(name for name in unexpected if re.search(r"head|value|critic", name) and name not in HEAD)
    require(not lost, f"{source}: {', '.join(lost)} would be left out; a value head is called {' and '.join(HEAD)}")
    return model, head


def read_head(source: str, allow_pickle: bool) -> dict[str, "Tensor"] | None:
    """The stored value head by the names of `v_head`'s parameters; None where there is nothing like one.

    Raises UserError when its tensors have other names, or when it could only be read from a pickle.
    """
    tensors: dict[str, Tensor] = {}
    for file in head_files(source, allow_pickle):
        tensors |= read_tensors(file, "v_head")
    if not tensors:
        return None
    require(
        sorted(tensors) == sorted(HEAD),
        f"{source}: the value head is stored as {', '.join(sorted(tensors))}; it has to be {' and '.join(HEAD)}",
    )
    return {name.removeprefix("v_head."): tensor for name, tensor in tensors.items()}


def load_head(v_head: Any, head: dict[str, "Tensor"], source: str) -> None:
    """Copy a stored value head into the module; raises UserError if a shape differs."""
    for name, parameter in v_head.named_parameters():
        found, needed = tuple(head[name].shape), tuple(parameter.shape)
        require(found == needed, f"{source}: v_head.{name} has shape {found}, the model needs {needed}")
        parameter.data.copy_(head[name])


def _read_plain(source: str, model_args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, set[str]]:
    """A causal language model, and the names of stored tensors that it has no place for."""
    from transformers import AutoModelForCausalLM

    try:
        model, report = AutoModelForCausalLM.from_pretrained(source, *model_args, output_loading_info=True, **options)
    except OSError as error:
        raise UserError(f"{source!r} {NOT_THERE} ({first_line(error)})") from error
    missing = sorted(report["missing_keys"])
    require(not missing, f"{source}: {len(missing)} tensors are missing, the first is {missing[:1]}")
    return model, report["unexpected_keys"]


def _read_adapters(source: str, model_args: tuple[Any, ...], options: dict[str, Any], is_trainable: bool) -> Any:
    """The base model that adapter_config.json names, with the adapters of the folder."""
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict

    file = locate(source, f"adapter_model{SAFE}") or locate(source, f"adapter_model{PICKLE}")
    require(file is not None, f"{source} holds an {ADAPTER_CONFIG} but no adapter_model{SAFE}")
    assert file is not None
    require(
        file.suffix == SAFE or options["use_safetensors"] is None,
        f"{source}: {file.name} is {PICKLE_HELP} use_safetensors=False",
    )
    base = PeftConfig.from_pretrained(source).base_model_name_or_path
    require(
        bool(base), f"{source}: {ADAPTER_CONFIG} names no base_model_name_or_path; write the base model's name there"
    )
    plain, _ = _read_plain(resolve_model_path(base), model_args, options)
    model = PeftModel.from_pretrained(plain, source, is_trainable=is_trainable)
    wrong = sorted(read_tensors(file).keys() ^ get_peft_model_state_dict(model).keys())
    require(not wrong, f"{file}: {len(wrong)} tensors do not match {ADAPTER_CONFIG}, the first is {wrong[:1]}")
    return model
