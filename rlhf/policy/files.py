"""Trained policies on disk: adapters in PEFT's layout, the value head in safetensors, strict loading."""

import copy
import json
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from rlhf.config import LoraConfig, ModelConfig
from rlhf.config.checks import require
from rlhf.config.common import DType
from rlhf.errors import UserError
from rlhf.models.adapters import ADAPTER_CONFIG, ADAPTER_FILE, POLICY_FILE, find_adapters, merge
from rlhf.models.quantization import is_quantized
from rlhf.policy.policy import Policy
from rlhf.policy.value_head import CRITIC_ADAPTER, POLICY_ADAPTER

VALUE_HEAD_FILE = "value_head.safetensors"


def save_policy(policy: Policy, folder: Path) -> None:
    """Write adapters, value head and policy.json, which names base model, LoRA settings and critic, into a folder.

    Of a quantized base policy.json says so.
    """
    from safetensors.torch import save_file

    adapters = [POLICY_ADAPTER, CRITIC_ADAPTER] if policy.critic == "adapter" else [POLICY_ADAPTER]
    policy.wrapper.pretrained_model.save_pretrained(
        str(folder), selected_adapters=adapters, save_embedding_layers=False
    )
    save_file(policy.wrapper.v_head.state_dict(), folder / VALUE_HEAD_FILE)
    description = {"base": policy.base_name, "critic": policy.critic, "lora": asdict(policy.lora)}
    if policy.critic == "adapter" and policy.wrapper.critic_lora != policy.lora:
        description["critic_lora"] = asdict(policy.wrapper.critic_lora)
    if policy.base_gguf_file is not None:
        description["gguf_file"] = policy.base_gguf_file
    if is_quantized(policy.language_model):
        description["quantization"] = "4bit"  # the adapters were trained on top of its rounding
    (folder / POLICY_FILE).write_text(json.dumps(description, indent=2) + "\n")


def is_policy_folder(name_or_path: str) -> bool:
    """Whether `save_policy` wrote this folder."""
    return (Path(name_or_path).expanduser() / POLICY_FILE).is_file()


def load_policy(folder: Path, trust_remote_code: bool = False, dtype: DType = "float32") -> Policy:
    """What `save_policy` wrote, on top of the base model that it names, which is loaded in this dtype.

    Raises UserError where the base is not there any more, and as `read_policy` does.
    """
    from rlhf.models.load import load_causal_lm

    folder = folder.expanduser().resolve()
    adapters = find_adapters(str(folder))
    require(adapters is not None, f"{folder} holds a {POLICY_FILE} but no {ADAPTER_CONFIG}; it is damaged")
    assert adapters is not None
    base = ModelConfig(
        name_or_path=adapters.base,
        gguf_file=adapters.gguf_file,
        quantization="4bit" if adapters.is_quantized else None,
        trust_remote_code=trust_remote_code,
        dtype=dtype,
    )
    said = json.loads((folder / POLICY_FILE).read_text())
    critic_lora = LoraConfig(**said["critic_lora"]) if "critic_lora" in said else None
    policy = Policy.with_lora(load_causal_lm(base), LoraConfig(**said["lora"]), said["critic"], critic_lora=critic_lora)
    read_policy(policy, folder)
    return policy


def read_policy(policy: Policy, folder: Path) -> None:
    """Take adapters and value head from a folder that `save_policy` wrote.

    Raises UserError when a file or a tensor is missing, left over or of another shape: a value head left at random is
    worse than none.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    peft_model, head = policy.wrapper.pretrained_model, policy.wrapper.v_head
    files = {POLICY_ADAPTER: folder / ADAPTER_FILE}
    if policy.critic == "adapter":
        files[CRITIC_ADAPTER] = folder / CRITIC_ADAPTER / ADAPTER_FILE
    for adapter, file in files.items():
        expected = get_peft_model_state_dict(peft_model, adapter_name=adapter, save_embedding_layers=False)
        set_peft_model_state_dict(peft_model, read_strictly(file, expected), adapter_name=adapter)
    head.load_state_dict(read_strictly(folder / VALUE_HEAD_FILE, head.state_dict()))
    policy.new_critic = False


def save_merged(policy: Policy, folder: Path) -> None:
    """Write a plain causal language model with the policy's adapters merged in, for `from_pretrained`.

    Raises UserError for a base that is quantized, which would round them away.
    """
    require(
        not is_quantized(policy.language_model),
        f"the base {policy.base_name!r} is quantized to 4bit, into which adapters cannot be merged; "
        "use the policy's folder as it is, base and adapters apart",
    )
    merge(copy.deepcopy(policy.wrapper.pretrained_model), POLICY_ADAPTER).save_pretrained(folder)


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
