"""What is found under a name, on the hub or in a folder, and whether it is safe to load."""

import contextlib
import io
import os
import shlex
from pathlib import Path
from typing import Any

from rlhf.config.gguf import split_path
from rlhf.errors import UserError, first_line, with_kind
from rlhf.models.adapters import ADAPTER_CONFIG, AdapterFolder, find_adapters, load_merged, locate, read_json
from rlhf.models.gguf_files import (
    alone,
    check_complete,
    find_gguf,
    is_model,
    listed,
    loading_options,
    split_text,
)
from rlhf.models.locate import model_in
from rlhf.runs.hub import look_for_hub

CONVERT = (
    "import sys, transformers as t; m = t.AutoModelForCausalLM.from_pretrained(sys.argv[1], "
    "use_safetensors=False); m.save_pretrained(sys.argv[1])"
)
CONVERT_ADAPTERS = (
    "import sys, torch; from safetensors.torch import save_file; f = sys.argv[1] + '/adapter_model'; "
    "save_file({k: v.clone() for k, v in torch.load(f + '.bin', weights_only=True).items()}, f + '.safetensors')"
)
"""Commands of one line that write a pickle's tensors as safetensors; PEFT's would need the base for it."""


def resolve_model_path(name_or_path: str) -> str:
    """A local folder as an absolute path (libraries try the hub first for a relative one), a hub name as it is.

    For the folder of a run it is that of the model in it.

    Raises UserError when the name can only be a path and nothing is there.
    """
    path = Path(model_in(name_or_path)).expanduser()
    if path.is_dir():
        return str(path.resolve())
    if name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") > 1:  # hub names have at most one slash
        raise UserError(f"model path {name_or_path!r} does not exist; train that stage first or correct the path")
    return name_or_path


def load_pretrained(
    auto_class: Any,
    name_or_path: str,
    trust_remote_code: bool = False,
    gguf_file: str | None = None,
    new_head: bool = False,
    **options: Any,
) -> Any:
    """What `auto_class.from_pretrained` makes of a hub name or a folder, or of a GGUF in one.

    Of adapters it is their base, a model with the adapters merged in (see `rlhf.models.adapters`).

    Args:
        auto_class: Of transformers.
        name_or_path: Hub name, folder, or path of a GGUF.
        trust_remote_code: Run Python code that comes with it.
        gguf_file: Name of a GGUF there.
        new_head: Whether a model may be given a head that is not stored, and leave out one that is.
        options: For `from_pretrained`.

    Raises UserError, in one line, when it can neither be found on disk nor fetched, when it is damaged, lacks a tensor
    or has one too many, when it needs Python code of its own and is not trusted with that, and, with
    use_safetensors=True among the options, when its weights are a pickle.
    """
    name, gguf_file = split_path(name_or_path, gguf_file)
    where = resolve_model_path(name)
    if gguf_file is not None:
        return _load_gguf(auto_class, where, gguf_file, options)
    if listed(Path(where)) and not any(Path(where).glob("*.json")):
        raise UserError(
            f"{name_or_path!r} holds GGUF files ({listed(Path(where))}); set model.gguf_file to one of them"
        )
    if options.get("use_safetensors"):
        _refuse_pickles(Path(where))
    adapters = find_adapters(where)
    if adapters is not None:
        return _load_adapted(auto_class, adapters, trust_remote_code, options | {"new_head": new_head})
    named = sorted(Path(where).glob(f"*/{ADAPTER_CONFIG}"))
    if named and not (Path(where) / "config.json").is_file():
        folders = ", ".join(str(file.parent) for file in named[:3])
        raise UserError(f"{name_or_path!r} is no model, but adapters are in folders in it: name one, such as {folders}")
    if is_model(auto_class):
        options = options | {"output_loading_info": True}
    loaded = _from_pretrained(auto_class, where, name_or_path, trust_remote_code, options)
    if not is_model(auto_class):
        return loaded
    model, report = loaded
    _require_complete(model, name_or_path, report, new_head)
    require_generation_config(locate(where, "generation_config.json"))
    return model


def _from_pretrained(
    auto_class: Any, where: str, name_or_path: str, trust_remote_code: bool, options: dict[str, Any]
) -> Any:
    """Raises UserError whatever goes wrong: a model's own code and the packages of quantizers fail in many ways."""
    from safetensors import SafetensorError

    if not os.path.isdir(where):
        look_for_hub()
    try:
        return auto_class.from_pretrained(where, trust_remote_code=trust_remote_code, **options)
    except (OSError, RuntimeError, SafetensorError) as error:
        folder = os.path.isdir(where)
        place = "cannot load the model folder" if folder else "neither a folder nor a reachable hub model:"
        raise UserError(f"{place} {name_or_path!r} ({first_line(error)})") from error
    except Exception as error:
        reason = first_line(error) if isinstance(error, ValueError | ImportError) else with_kind(error)[:300]
        raise UserError(
            f"{name_or_path!r} comes with Python code, which would be run to load it; read that code, and set "
            "trust_remote_code: true beside its name if you trust it"
            if "custom code" in reason
            else f"cannot load {name_or_path!r} ({reason})"
        ) from error


def require_generation_config(file: Path | None) -> None:
    """Raise UserError for a generation_config.json that transformers could not read, and says nothing of.

    A response ends where it says, so that its tokens have to be token ids.
    """
    named = {} if file is None else read_json(file)
    ends = named.get("eos_token_id")
    ids = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if any(type(token) is not int for token in ids):
        raise UserError(f"{file}: eos_token_id is {ends!r}; it must be a token id, or a list of them")


def _require_complete(model: Any, name_or_path: str, report: dict[str, Any], new_head: bool) -> None:
    """Raise UserError unless the tensors stored are those of the model, by name; see `load_pretrained`.

    A value head that is stored with a language model belongs to a critic, and is ignored elsewhere.
    """
    missing, unexpected = (set(report[f"{kind}_keys"]) for kind in ("missing", "unexpected"))
    unexpected = {name for name in unexpected if not name.startswith("v_head.")}
    if new_head:
        trunk = model.base_model_prefix + "."
        missing, unexpected = ({name for name in names if name.startswith(trunk)} for names in (missing, unexpected))
    for names, what in ((missing, "is missing, and would be random"), (unexpected, "has no place in the model")):
        if names:
            raise UserError(
                f"{name_or_path!r} is not a whole {type(model).__name__}: tensor {min(names)!r} {what} "
                f"({len(names)} in all); the files are damaged, or of another kind of model"
            )


def _load_adapted(auto_class: Any, adapters: AdapterFolder, trust_remote_code: bool, options: dict[str, Any]) -> Any:
    """The base with the adapters in it; its config; the tokenizer that was saved with the adapters, or the base's."""
    where, base = adapters.where, adapters.base

    def load_base(**options: Any) -> Any:
        if adapters.revision is not None:
            options["revision"] = adapters.revision
        try:
            return load_pretrained(auto_class, base, trust_remote_code, adapters.gguf_file, **options)
        except UserError as error:
            raise UserError(f"{where!r} holds adapters for another model: {error}") from error

    if is_model(auto_class):
        with_head = auto_class.__name__ == "AutoModelForSequenceClassification"
        return load_merged(adapters, load_base, options, with_head)
    options.pop("new_head")
    if hasattr(auto_class, "for_model") or locate(where, "tokenizer_config.json") is None:
        return load_base(**options)
    return _from_pretrained(auto_class, where, where, trust_remote_code, options)


def _load_gguf(auto_class: Any, where: str, gguf_file: str, options: dict[str, Any]) -> Any:
    """The same for a GGUF, by its full path; a model remembers where it came from.

    Readers of a damaged file raise many kinds of errors.
    """
    file = find_gguf(where, gguf_file)
    try:
        with alone(file) as folder, contextlib.redirect_stderr(io.StringIO()):  # a bar that cannot be turned off
            loaded = auto_class.from_pretrained(folder, **loading_options(auto_class, folder / file.name), **options)
    except Exception as error:
        raise UserError(f"cannot read the GGUF {gguf_file!r} in {where!r} ({with_kind(error)[:300]})") from error
    if is_model(auto_class):
        loaded, report = loaded
        check_complete(loaded, file, set(report["missing_keys"]))
        loaded.config.name_or_path, loaded.gguf_file = where, gguf_file
    elif hasattr(loaded, "backend_tokenizer"):
        split_text(loaded, file)
    loaded.name_or_path = where
    return loaded


def _refuse_pickles(folder: Path) -> None:
    """Raise UserError for a folder whose weights are there as a pickle only: to read one can be to run code."""
    for kind, convert in (("pytorch_model", CONVERT), ("adapter_model", CONVERT_ADAPTERS)):
        pickles = sorted(folder.glob(f"{kind}*.bin"))
        if pickles and not any(folder.glob(f"{kind.removeprefix('pytorch_')}*.safetensors")):
            raise UserError(
                f"{pickles[0]} is a pickle, which may run code when it is read; if you trust it, convert it to "
                f'safetensors: python -c "{convert}" {shlex.quote(str(folder))}'
            )
