"""TRL's value-head checkpoints: read strictly, written so that TRL reads the same numbers.

Layouts: a causal language model whose weight files also hold `v_head.summary.weight` and `.bias` (one file or shards),
or a folder of PEFT adapters with the head alone in a second file. TRL wrote that file as a pickle, pytorch_model.bin;
here it is model.safetensors, which TRL looks for first.
"""

import contextlib
import inspect
import logging
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.classic.old_peft import check_readable_by_old_peft, write_for_old_peft
from rlhf.classic.weight_files import (
    ADAPTER_CONFIG,
    NOT_THERE,
    SAFE,
    Source,
    adapter_file,
    head_files,
    read_tensors,
)
from rlhf.config.checks import require
from rlhf.errors import UserError, first_line, one_line, with_kind
from rlhf.models.pretrained import require_generation_config, resolve_model_path
from rlhf.policy.value_head import CRITIC_ADAPTER

if TYPE_CHECKING:
    from torch import Tensor

HEAD = ("v_head.summary.weight", "v_head.summary.bias")


def save_checkpoint(model: Any, folder: str | Path, trl_0_11: bool = False, **options: Any) -> None:
    """Write a value-head model, ours or TRL's, into a folder, which is made if need be; no pickles.

    A plain model and its head go into one model.safetensors (TRL cannot read local shards), a PEFT model's adapters
    into their own file and the head into model.safetensors. Of several, those that are active lie in the folder itself,
    from where they are loaded, the others in folders of their names.

    Args:
        model: The value-head model; of a `Policy`, its `wrapper`.
        folder: Files of the same names are replaced.
        trl_0_11: Leave out of adapter_config.json what the PEFT of TRL 0.11 (0.13) refuses to read.
        options: For the `save_pretrained` of transformers or PEFT. A state_dict may hold the value head too; of a PEFT
            model it is not needed.

    Raises UserError for a critic with adapters of its own, which TRL's layout has no place for, and with trl_0_11 for
    adapters that old PEFT could not compute.
    """
    from safetensors.torch import save_file

    require(
        options.pop("safe_serialization", True) is not False, "safe_serialization is False; pickles are not written"
    )
    refuse_unread(model.pretrained_model, options)
    if options.get("is_main_process", True) is False:
        return
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    given = options.pop("state_dict", None) or {}
    head = {f"v_head.{name}": p.detach() for name, p in model.v_head.named_parameters()}
    head = {name: given.get(name, tensor).cpu().contiguous() for name, tensor in head.items()}
    if hasattr(model.pretrained_model, "peft_config"):
        configs = model.pretrained_model.peft_config
        require(
            CRITIC_ADAPTER not in configs,
            "the critic has adapters of its own, which TRL's layout cannot hold; "
            "save the policy with rlhf.policy.files",
        )
        if trl_0_11:
            check_readable_by_old_peft(configs)
        model.pretrained_model.save_pretrained(str(folder), **options)
        put_on_top(folder, model.pretrained_model.active_adapter)
        save_file(head, folder / f"model{SAFE}", metadata={"format": "pt"})
        if trl_0_11:
            write_for_old_peft(folder)
    else:
        weights = given or model.pretrained_model.state_dict()
        one_file = {"max_shard_size": "1000GB"} | options
        model.pretrained_model.save_pretrained(str(folder), state_dict=weights | head, **one_file)


def refuse_unread(model: Any, options: dict[str, Any]) -> None:
    """Raise UserError for options of `save_pretrained` that neither transformers nor PEFT would act on."""
    known = inspect.signature(model.save_pretrained).parameters.keys() - {"push_to_hub", "kwargs"}
    for name, value in options.items():
        require(
            name in known or name == "state_dict" or value in (None, False),
            f"save_pretrained got {name}={value!r}, which would have no effect; leave it out, and upload with "
            "model.push_to_hub(repo_id)",
        )


def put_on_top(folder: Path, adapter: str) -> None:
    """Move what PEFT put into a folder of the adapter's name up; what is called default, and was there, into one."""
    if adapter == "default":
        return
    for file in (ADAPTER_CONFIG, f"adapter_model{SAFE}"):
        if (folder / file).is_file():
            (folder / "default").mkdir(exist_ok=True)
            (folder / file).replace(folder / "default" / file)
        (folder / adapter / file).replace(folder / file)
    shutil.rmtree(folder / adapter)


def read_checkpoint(
    source: Source, *model_args: Any, is_trainable: bool = True, **options: Any
) -> tuple[Any, dict[str, "Tensor"] | None]:
    """A plain or PEFT model, and the value head that is stored with it (see `read_head`)."""
    has_adapters = source.locate(ADAPTER_CONFIG) is not None
    require(has_adapters or source.locate("config.json") is not None, f"{source.name!r} {NOT_THERE}")
    head = read_head(source)
    options["use_safetensors"] = None if source.allow_pickle else True
    if has_adapters:
        return _read_adapters(source, model_args, options, is_trainable), head
    model, unexpected = _read_plain(source.name, model_args, options)
    lost = sorted(unexpected - set(HEAD))
    if any(re.search(r"head|value|critic", name) for name in lost) or (lost and head):
        raise UserError(
            f"{source.name}: {', '.join(lost[:3])} would be left out; a value head is called {' and '.join(HEAD)}"
        )
    if lost:
        warnings.warn(f"{source.name}: {len(lost)} tensors have no place in the model, the first is {lost[0]}")
    return model, head


def read_head(source: Source) -> dict[str, "Tensor"] | None:
    """The stored value head by the names of `v_head`'s parameters; None where there is nothing like one.

    Raises UserError when its tensors have other names, or when it could only be read from a pickle.
    """
    tensors: dict[str, Tensor] = {}
    for file in head_files(source):
        tensors |= read_tensors(file, "v_head")
    if not tensors:
        return None
    require(
        sorted(tensors) == sorted(HEAD),
        f"{source.name}: the value head is stored as {', '.join(sorted(tensors))}; it has to be {' and '.join(HEAD)}",
    )
    return {name.removeprefix("v_head."): tensor for name, tensor in tensors.items()}


def load_head(v_head: Any, head: dict[str, "Tensor"], source: str) -> None:
    """Copy a stored value head into the module; raises UserError if a shape differs or a number is not finite."""
    for name, parameter in v_head.named_parameters():
        require(name in head, f"{source}: v_head.{name} is missing")
        found, needed = tuple(head[name].shape), tuple(parameter.shape)
        require(found == needed, f"{source}: v_head.{name} has shape {found}, the model needs {needed}")
        require(bool(head[name].isfinite().all()), f"{source}: v_head.{name} holds numbers that are not finite")
        parameter.data.copy_(head[name])


def _read_plain(name_or_path: str, model_args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, set[str]]:
    """A causal language model, and the names of stored tensors that it has no place for."""
    from transformers import AutoModelForCausalLM

    require(
        not options.get("ignore_mismatched_sizes"), "ignore_mismatched_sizes is True, which fills in random weights"
    )
    options |= {"ignore_mismatched_sizes": True, "output_loading_info": True}  # they are refused below, by name
    try:
        with _without_report():
            model, report = AutoModelForCausalLM.from_pretrained(name_or_path, *model_args, **options)
    except OSError as error:
        raise UserError(f"{name_or_path!r} {NOT_THERE} ({first_line(error)})") from error
    except Exception as error:  # an encoder-decoder, a class of its own code, a quantizer's package that is missing
        reason = first_line(error) if isinstance(error, ValueError) else with_kind(error)[:300]
        raise UserError(f"cannot load {name_or_path!r} as a causal language model ({reason})") from error
    wrong = [
        f"{name} has shape {tuple(found)}, the model needs {tuple(needed)}"
        for name, found, needed in report["mismatched_keys"]
    ]
    require(not wrong, f"{name_or_path}: {min(wrong, default='')}")
    missing = sorted(report["missing_keys"])
    require(not missing, f"{name_or_path}: {len(missing)} tensors are missing, the first is {missing[:1]}")
    require_generation_config(Source.of(name_or_path, False, options).locate("generation_config.json"))
    return model, set(report["unexpected_keys"])


def _read_adapters(source: Source, model_args: tuple[Any, ...], options: dict[str, Any], is_trainable: bool) -> Any:
    """The base model that adapter_config.json names, with the adapters of the folder."""
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict

    file = adapter_file(source)
    settings = PeftConfig.from_pretrained(source.name, **source.hub)
    base = settings.base_model_name_or_path
    require(
        bool(base),
        f"{source.name}: {ADAPTER_CONFIG} names no base_model_name_or_path; write the base model's name there",
    )
    for_base = {name: value for name, value in options.items() if name not in ("revision", "subfolder")}
    plain, _ = _read_plain(resolve_model_path(base), model_args, for_base | _base_revision(settings))
    try:
        model = PeftModel.from_pretrained(plain, source.name, is_trainable=is_trainable, **source.hub)
    except RuntimeError as error:  # tensors of another rank
        raise UserError(f"{file} does not fit {ADAPTER_CONFIG} or the base ({one_line(error)[:300]})") from error
    wrong = sorted(read_tensors(file).keys() ^ get_peft_model_state_dict(model).keys())
    require(not wrong, f"{file}: {len(wrong)} tensors do not match {ADAPTER_CONFIG}, the first is {wrong[:1]}")
    return model


@contextlib.contextmanager
def _without_report() -> Iterator[None]:
    """Hold back transformers' table of tensors without a place: it lists every value head, and what is wrong raises."""
    logger = logging.getLogger("transformers.modeling_utils")

    def is_other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def _base_revision(settings: Any) -> dict[str, str]:
    """The revision of the base that the adapters were trained on, where they say one."""
    return {"revision": settings.revision} if settings.revision else {}
