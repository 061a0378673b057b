"""PEFT adapters in a folder or on the hub, as a model: their base with the adapters merged in.

They may be the work of another program, or a policy that `rlhf ppo` wrote. Merged, the model is what was trained: where
PPO begins, and what its reference is.
"""

import contextlib
import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from rlhf.errors import UserError, first_line, with_kind
from rlhf.models.dropout import ordinary_tokens
from rlhf.models.head import trunk_of
from rlhf.models.rounding import is_rounding, relative_error
from rlhf.runs.hub import look_for_hub

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel

ADAPTER_CONFIG, ADAPTER_FILE, POLICY_FILE = "adapter_config.json", "adapter_model.safetensors", "policy.json"
STIR = 0.02
"""Standard deviation of what is added to adapters for a trial: as much as the weights themselves scatter."""
ANOTHER = "the adapters belong to another model, or are damaged"


class AdapterFolder(NamedTuple):
    """Where adapters are, and what they belong on.

    Attributes:
        where: Absolute folder, or hub name.
        base: Hub name or folder of the base model.
        gguf_file: The GGUF there that is the base, if it is one.
        is_quantized: Whether they were trained on a base in four bits.
        revision: Of a base on the hub.
    """

    where: str
    base: str
    gguf_file: str | None = None
    is_quantized: bool = False
    revision: str | None = None


def find_adapters(where: str) -> AdapterFolder | None:
    """What is in a folder or hub repository, if that is adapters; None for anything else.

    Raises UserError where they do not say what their base is, or where it is not there any more.
    """
    file = locate(where, POLICY_FILE) or locate(where, ADAPTER_CONFIG)
    if file is None:
        return None
    said = read_json(file)
    if "lora" in said and said["lora"] is None:  # a policy that was trained in full is a model
        return None
    if file.name == POLICY_FILE:
        base, named_in = said["base"], f"base in {POLICY_FILE}"
    else:
        base, named_in = said.get("base_model_name_or_path"), f"base_model_name_or_path in {ADAPTER_CONFIG}"
    if not base or not isinstance(base, str):
        raise UserError(f"{where!r} holds adapters, but does not say for which model; write its name as {named_in}")
    beside = Path(where) / base
    if not Path(base).is_dir() and beside.is_dir():
        base = str(beside.resolve())
    if base == where or (Path(base).is_dir() and Path(base).resolve() == Path(where).resolve()):
        raise UserError(f"{where!r} holds adapters for themselves; write the name of their model as {named_in}")
    elif not Path(base).is_dir() and (base.startswith((".", "/", "~")) or base.count("/") > 1):
        raise UserError(
            f"{where!r} holds adapters for the model {base!r}, which is not there; write where it is now as {named_in}"
        )
    return AdapterFolder(where, base, said.get("gguf_file"), said.get("quantization") is not None, said.get("revision"))


def read_json(file: Path) -> dict[str, Any]:
    """The settings in a file; raises UserError for one that is damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read ({first_line(error)}); it is damaged or incomplete") from error
    if not isinstance(found, dict):
        raise UserError(f"{file} holds {found!r:.40}; it must be a JSON object")
    return found


def locate(where: str, name: str) -> Path | None:
    """A file of a folder or hub repository; None where it is missing, or the hub cannot be reached."""
    if os.path.isdir(where):
        file = Path(where) / name
        return file if file.is_file() else None
    from rlhf.models.private_names import cached_file

    look_for_hub()

    with contextlib.suppress(OSError, ValueError):
        found = cached_file(
            where, name, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
        )
        return None if found is None else Path(found)
    return None


def load_merged(
    adapters: AdapterFolder, load_base: Callable[..., "PreTrainedModel"], options: dict[str, Any], with_head: bool
) -> "PreTrainedModel":
    """The base with the adapters merged in, as PEFT merges their kind, in the base's dtype.

    Args:
        adapters: Where they are.
        load_base: Loads the base; takes the options.
        options: For `from_pretrained`.
        with_head: Whether the adapters may come with a head for the base, as those of a reward model do.

    Raises UserError where a tensor is missing, left over or of another shape, where the base is in four bits, which
    would round the adapters away, or where the merged model computes something else than base and adapters.
    """
    import peft

    where = adapters.where
    if adapters.is_quantized or options.get("quantization_config") is not None:
        raise UserError(
            f"{where!r} holds adapters, which cannot be merged into a base in 4bit; remove model.quantization, or take "
            "adapters that were trained without it"
        )
    file = locate(where, ADAPTER_FILE)
    shapes = {} if file is None else stored_shapes(file)
    scores = [shape for name, shape in shapes.items() if name.endswith(("score.weight", "classifier.weight"))]
    if scores and with_head:
        options = options | {"num_labels": scores[0][0], "new_head": True}  # the head comes with the adapters
    model = load_base(**options)
    if file is None:
        raise UserError(f"{where!r} holds no {ADAPTER_FILE}; save the adapters as safetensors")
    fit_vocabulary(model, shapes)
    try:
        settings = peft.PeftConfig.from_pretrained(where)
        if settings.task_type == "CAUSAL_LM" and model.get_output_embeddings() is None:
            settings.task_type = None  # adapters of a language model's trunk, under another head
        if settings.is_prompt_learning:
            raise UserError(f"{where!r} holds {settings.peft_type.value}, which cannot be merged into a model")
        wrapper = peft.MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(settings.task_type, peft.PeftModel)(model, settings)
        check_shapes(wrapper, settings, shapes, file)
        result = wrapper.load_adapter(where, "default", is_trainable=False)
    except UserError:
        raise
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise UserError(f"cannot put the adapters in {where!r} on {adapters.base!r} ({first_line(error)})") from error
    for names, what in ((result.missing_keys, "is missing"), (result.unexpected_keys, "has no place in the model")):
        if names:
            raise UserError(f"{file}: tensor {min(names)!r} {what}; {ANOTHER}")
    merged = merge(wrapper)
    merged.name_or_path = merged.config.name_or_path = where
    merged.gguf_file = None  # of the base; this model is none
    return merged


def stored_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a safetensors file; raises UserError for one that is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as stored:
            return {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} cannot be read ({first_line(error)}); it is damaged or incomplete") from error


def fit_vocabulary(model: "PreTrainedModel", shapes: dict[str, tuple[int, ...]]) -> None:
    """Make room for tokens that were added before the adapters were trained, whose embeddings come with them."""
    embeddings = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "lm_head.weight")
    rows = {shape[0] for name, shape in shapes.items() if name.endswith(embeddings)}
    if rows and max(rows) != model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(max(rows), mean_resizing=False)


def check_shapes(wrapper: "PeftModel", settings: "PeftConfig", shapes: dict[str, tuple[int, ...]], file: Path) -> None:
    """Raise UserError unless the file has all tensors of the adapters, in their shapes."""
    from peft import get_peft_model_state_dict

    if getattr(settings, "target_parameters", None):
        return  # names of those are translated on the way; `load_adapter` says what it did not find
    for name, tensor in sorted(get_peft_model_state_dict(wrapper, save_embedding_layers=False).items()):
        if name not in shapes:
            raise UserError(f"{file}: tensor {name!r} is missing; {ANOTHER}")
        if shapes[name] != tuple(tensor.shape):
            raise UserError(
                f"{file}: tensor {name!r} has shape {shapes[name]}, expected {tuple(tensor.shape)}; {ANOTHER}"
            )


def merged_copy(model: "PreTrainedModel | PeftModel") -> "PreTrainedModel":
    """The plain model, adapters merged in, of one that goes on being trained; one without adapters is itself."""
    if not hasattr(model, "peft_config"):
        return model
    copied = copy.deepcopy(model)
    for module in copied.modules():
        vars(module).pop("forward", None)  # a trainer's, which may lead back to the model that was copied
    return merge(copied)


def merge(wrapper: "PeftModel", adapter: str | None = None) -> "PreTrainedModel":
    """The plain model with an adapter (None: the active one) merged in; raises UserError if that changes its results.

    Where adapters changed one of two tied embeddings, the LM head gets weights of its own.
    """
    kinds = ", ".join(sorted({settings.peft_type.value for settings in wrapper.peft_config.values()}))
    untie(wrapper.get_base_model())
    before = reading(wrapper.get_base_model())
    try:
        merged = wrapper.merge_and_unload(adapter_names=None if adapter is None else [adapter])
    except Exception as raised:  # each kind of adapters that cannot be merged fails in a way of its own
        raise UserError(
            f"adapters of this kind ({kinds}) cannot be merged into {type(wrapper.get_base_model()).__name__}: "
            f"{with_kind(raised)[:200]}"
        ) from raised
    retie(merged)
    after = reading(merged)
    error = relative_error(after, before)
    if not is_rounding(error, merged, lambda: reading(merged), after):
        raise UserError(
            f"{type(merged).__name__} with its adapters ({kinds}) merged in computes something else than with them "
            f"apart (relative error {error:.2g}), so it is not supported; take other lora.target_modules"
        )
    return merged


@contextlib.contextmanager
def stirred(adapters: list[nn.Parameter]) -> Iterator[None]:
    """Within this context adapters are away from 0, where they begin and where no mistake would show."""
    originals = [parameter.detach().clone() for parameter in adapters]
    try:
        for number, p in enumerate(adapters):
            generator = torch.Generator(device=p.device).manual_seed(number)
            p.data.add_(STIR * torch.randn(p.shape, generator=generator, device=p.device, dtype=p.dtype))
        yield
    finally:
        for parameter, original in zip(adapters, originals, strict=True):
            parameter.data.copy_(original)


def untie(model: "PreTrainedModel") -> None:
    """Give the LM head weights of its own, if it shares them with the embedding and only one of the two is adapted."""
    from rlhf.models.private_names import BaseTunerLayer, ModulesToSaveWrapper

    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    adapted = BaseTunerLayer | ModulesToSaveWrapper
    if not model.config.tie_word_embeddings or not (isinstance(head, adapted) or isinstance(embedding, adapted)):
        return
    plain = head.get_base_layer() if isinstance(head, BaseTunerLayer) else getattr(head, "original_module", head)
    plain.weight = nn.Parameter(plain.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False


def retie(model: "PreTrainedModel") -> None:
    """Have the config say so where LM head and embedding are one tensor: else only one of the two would be stored."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and head.weight is embedding.weight:
        model.config.tie_word_embeddings = True


@torch.no_grad()
def reading(model: "PreTrainedModel", in_train_mode: bool = False) -> Tensor:
    """What a model makes of a few tokens: its logits, or its features where it has no LM head."""
    ids, was_training = ordinary_tokens(model), model.training
    model.train(in_train_mode)
    if model.get_output_embeddings() is None:
        said = trunk_of(model)(input_ids=ids).last_hidden_state
    else:
        said = model(input_ids=ids, use_cache=False).logits
    model.train(was_training)
    return said
