"""Trained policies on disk: adapters in PEFT's layout or a whole model, value head in safetensors, strict loading."""

import copy
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from torch import Tensor

from rlhf.config import WITH_ADAPTERS, Critic, DType, LoraConfig, ModelConfig
from rlhf.config.checks import require
from rlhf.config.command_line import build
from rlhf.config.expected import what_is_wrong
from rlhf.errors import UserError, one_line
from rlhf.models.adapters import ADAPTER_CONFIG, ADAPTER_FILE, POLICY_FILE, find_adapters, locate, merge
from rlhf.models.divided import mesh_of
from rlhf.models.pretrained import load_pretrained
from rlhf.models.quantization import is_quantized
from rlhf.policy.policy import Policy
from rlhf.policy.value_head import CRITIC_ADAPTER, POLICY_ADAPTER, wrap_in_full
from rlhf.policy.whole import hand_out, whole_state

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VALUE_HEAD_FILE = "value_head.safetensors"
CRITIC_FOLDER = "critic"
"""Where the critic's own adapters are, or its own trunk."""
FROM_HUB = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.py"]
"""What is fetched of a policy on the hub: no pickle, and nothing else that nobody reads."""


def save_policy(policy: Policy, folder: Path) -> None:
    """Write adapters, value head and policy.json, which names base model, LoRA settings and critic, into a folder.

    Of a policy that is trained in full the folder holds the whole model, as `from_pretrained` reads it, in place of
    adapters, and `lora` is null. If they are divided among processes it is called within `whole_on_first`. Of a
    quantized base policy.json says so.
    """
    from safetensors.torch import save_file

    if policy.is_peft:
        adapters = [POLICY_ADAPTER, CRITIC_ADAPTER] if policy.critic in WITH_ADAPTERS else [POLICY_ADAPTER]
        policy.wrapper.pretrained_model.save_pretrained(
            str(folder), selected_adapters=adapters, save_embedding_layers=False
        )
    else:
        policy.language_model.save_pretrained(folder, state_dict=whole_state(policy, policy.language_model))
    if policy.critic == "separate":
        trunk = policy.wrapper.critic_trunk
        trunk.save_pretrained(folder / CRITIC_FOLDER, state_dict=whole_state(policy, trunk))
    save_file(policy.wrapper.v_head.state_dict(), folder / VALUE_HEAD_FILE)
    lora = None if policy.lora is None else asdict(policy.lora)
    description = {"base": policy.base_name, "critic": policy.critic, "lora": lora}
    if policy.wrapper.branch is not None:
        description["critic_layers"] = policy.wrapper.branch.n_blocks
    if policy.critic in WITH_ADAPTERS and policy.wrapper.critic_lora != policy.lora:
        description["critic_lora"] = asdict(policy.wrapper.critic_lora)
    if policy.base_gguf_file is not None:
        description["gguf_file"] = policy.base_gguf_file
    if is_quantized(policy.language_model):
        description["quantization"] = "4bit"  # the adapters were trained on top of its rounding
    (folder / POLICY_FILE).write_text(json.dumps(description, indent=2) + "\n")


def is_policy_folder(name_or_path: str) -> bool:
    """Whether `save_policy` wrote this folder."""
    return (Path(name_or_path).expanduser() / POLICY_FILE).is_file()


def policy_folder(name_or_path: str) -> Path | None:
    """The folder that `save_policy` wrote, fetched if it is on the hub; None for any other model.

    Raises UserError where a policy is on the hub, but cannot be fetched.
    """
    if Path(name_or_path).expanduser().exists():
        return Path(name_or_path) if is_policy_folder(name_or_path) else None
    if locate(name_or_path, POLICY_FILE) is None:
        return None
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name_or_path, allow_patterns=FROM_HUB))
    except (OSError, ValueError) as error:
        raise UserError(f"the policy {name_or_path!r} cannot be fetched from the hub ({one_line(error)})") from error


def is_trained_in_full(folder: Path) -> bool:
    """Whether a folder of `save_policy` holds a whole model, not adapters."""
    return read_description(folder)["lora"] is None


def load_policy(folder: Path, trust_remote_code: bool = False, dtype: DType = "float32") -> Policy:
    """What `save_policy` wrote, on top of the base model that it names; raises as `read_policy` does.

    `dtype` is that of the base, or of all weights that were trained in full. The base is the reference of these too.
    """
    from rlhf.models.load import load_causal_lm

    folder = folder.expanduser().resolve()
    description = read_description(folder)
    if description["lora"] is not None:
        adapters = find_adapters(str(folder))
        require(adapters is not None, f"{folder} holds a {POLICY_FILE} but no {ADAPTER_CONFIG}; it is damaged")
        assert adapters is not None
        quantization = "4bit" if adapters.is_quantized else None
        description |= {"base": adapters.base, "gguf_file": adapters.gguf_file, "quantization": quantization}
    base = ModelConfig(
        name_or_path=description["base"],
        gguf_file=description.get("gguf_file"),
        quantization=description.get("quantization"),
        trust_remote_code=trust_remote_code,
        dtype=dtype,
    )
    critic, reference = description["critic"], load_causal_lm(base)
    if description["lora"] is None:
        model = load_causal_lm(replace(base, name_or_path=str(folder), gguf_file=None))
        policy = Policy(wrap_in_full(model, critic), critic, reference)
    else:
        critic_lora = build(LoraConfig, description["critic_lora"]) if description.get("critic_lora") else None
        policy = Policy.with_lora(
            reference,
            build(LoraConfig, description["lora"]),
            critic,
            critic_lora=critic_lora,
            critic_layers=description.get("critic_layers"),
        )
    read_policy(policy, folder)
    return policy


@dataclass(frozen=True)
class Description:
    """What policy.json holds."""

    base: str
    critic: Critic
    lora: LoraConfig | None
    critic_lora: LoraConfig | None = None
    critic_layers: int | None = None
    gguf_file: str | None = None
    quantization: Literal["4bit"] | None = None


def read_description(folder: Path) -> dict[str, Any]:
    """What policy.json says; raises UserError, in one line, unless it is as `save_policy` writes it."""
    file = folder / POLICY_FILE
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read ({one_line(error)}); the policy is damaged or incomplete") from error
    require(isinstance(found, dict), f"{file} holds {found!r:.40}; it must be a JSON object with base, critic and lora")
    missing = next((name for name in ("base", "critic", "lora") if name not in found), None)
    wrong = f"{missing} is missing" if missing else what_is_wrong(Description, found)
    require(wrong is None, f"{file} is not as rlhf ppo writes it: {wrong}")
    return cast(dict[str, Any], found)


def read_policy(policy: Policy, folder: Path) -> None:
    """Take adapters, or all weights, and value head from a folder that `save_policy` wrote.

    Raises UserError when a file or a tensor is missing, left over or of another shape: a value head left at random is
    worse than none.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    peft_model, head = policy.wrapper.pretrained_model, policy.wrapper.v_head
    files = {POLICY_ADAPTER: folder / ADAPTER_FILE} if policy.is_peft else {}
    if policy.critic in WITH_ADAPTERS:
        files[CRITIC_ADAPTER] = folder / CRITIC_ADAPTER / ADAPTER_FILE
    if not policy.is_peft:
        read_weights(policy.language_model, folder)
    if policy.critic == "separate":
        read_weights(policy.wrapper.critic_trunk, folder / CRITIC_FOLDER)
    for adapter, file in files.items():
        expected = get_peft_model_state_dict(peft_model, adapter_name=adapter, save_embedding_layers=False)
        set_peft_model_state_dict(peft_model, read_strictly(file, expected), adapter_name=adapter)
    head.load_state_dict(read_strictly(folder / VALUE_HEAD_FILE, head.state_dict()))
    policy.new_critic = False


def save_merged(policy: Policy, folder: Path) -> None:
    """Write a plain causal language model with the policy's adapters (if any) merged in, for `from_pretrained`.

    In the dtype that the policy was loaded in.

    Raises UserError for a base that is quantized.
    """
    require_not_quantized(policy)
    if not policy.is_peft:
        policy.language_model.save_pretrained(folder)
        return
    merge(copy.deepcopy(policy.wrapper.pretrained_model), POLICY_ADAPTER).save_pretrained(folder)


def write_stop_ids(policy: Policy, folder: Path, stop_ids: list[int]) -> None:
    """Name all tokens that end a response beside a whole model that was saved, for transformers and vLLM to stop there.

    The policy in memory does not change.
    """
    settings = copy.deepcopy(policy.language_model.generation_config)
    settings.eos_token_id = stop_ids
    settings.save_pretrained(folder)


def require_not_quantized(policy: Policy) -> None:
    """Raise UserError for a policy whose base is quantized, which would round merged adapters away."""
    require(
        not is_quantized(policy.language_model),
        f"the base {policy.base_name!r} is quantized to 4bit, into which adapters cannot be merged; "
        "use the policy's folder as it is, base and adapters apart",
    )


def read_weights(model: "PreTrainedModel", folder: Path) -> None:
    """Put the weights that `save_pretrained` wrote into a model; raises UserError unless they are all of its.

    Of a model that is divided among processes all have to call it; the first of each machine reads them.
    """
    if mesh_of(model) is not None:
        hand_out(lambda: _stored(model, folder), model)
        return
    try:
        model.load_state_dict(_stored(model, folder).state_dict())
    except RuntimeError as error:
        raise UserError(f"{folder} belongs to another model ({one_line(error)[:200]})") from error


def _stored(model: "PreTrainedModel", folder: Path) -> "PreTrainedModel":
    options = {"dtype": model.dtype, "use_safetensors": True, "output_loading_info": True}
    stored: PreTrainedModel
    stored, info = load_pretrained(type(model), str(folder), **options)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        names = ", ".join(sorted(map(str, info[kind]))[:3])
        require(not info[kind], f"{folder}: {kind.replace('_', ' ')} {names}; this folder belongs to another model")
    return stored


def read_strictly(file: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises UserError unless names and shapes are the expected ones."""
    found = read_safetensors(file)
    for name in sorted(found.keys() | expected.keys()):
        if name not in found:
            raise UserError(f"{file}: tensor {name!r} is missing; this file belongs to another policy or is damaged")
        if name not in expected:
            raise UserError(f"{file}: tensor {name!r} has no place in this policy; check model and lora")
        if found[name].shape != expected[name].shape:
            shapes = f"{tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
            raise UserError(f"{file}: tensor {name!r} has shape {shapes}; check model and lora")
    return found


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises UserError for one that is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} cannot be read ({error}); the checkpoint is damaged or incomplete") from error
    return tensors
