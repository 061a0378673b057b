"""Trained policies on disk: adapters in PEFT's layout, the value head in safetensors, strict loading."""

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from torch import Tensor

from rlhf.config import Critic, LoraConfig, ModelConfig
from rlhf.config.checks import require
from rlhf.config.command_line import build
from rlhf.config.expected import what_is_wrong
from rlhf.errors import UserError, one_line
from rlhf.models.quantization import is_quantized
from rlhf.policy.policy import Policy
from rlhf.policy.value_head import CRITIC_ADAPTER, POLICY_ADAPTER

POLICY_FILE, VALUE_HEAD_FILE, ADAPTER_FILE = "policy.json", "value_head.safetensors", "adapter_model.safetensors"


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
    if policy.base_gguf_file is not None:
        description["gguf_file"] = policy.base_gguf_file
    if is_quantized(policy.language_model):
        description["quantization"] = "4bit"  # the adapters were trained on top of its rounding
    (folder / POLICY_FILE).write_text(json.dumps(description, indent=2) + "\n")


def is_policy_folder(name_or_path: str) -> bool:
    """Whether `save_policy` wrote this folder."""
    return (Path(name_or_path) / POLICY_FILE).is_file()


def load_policy(folder: Path, trust_remote_code: bool = False) -> Policy:
    """What `save_policy` wrote, on top of the base model that it names; raises as `read_policy` does."""
    from rlhf.models.load import load_causal_lm

    description = read_description(folder)
    base = ModelConfig(
        name_or_path=description["base"],
        gguf_file=description.get("gguf_file"),
        quantization=description.get("quantization"),
        trust_remote_code=trust_remote_code,
    )
    model = load_causal_lm(base)
    policy = Policy.with_lora(model, build(LoraConfig, description["lora"]), description["critic"])
    read_policy(policy, folder)
    return policy


@dataclass(frozen=True)
class Description:
    """What policy.json holds."""

    base: str
    critic: Critic
    lora: LoraConfig
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
    merged = copy.deepcopy(policy.wrapper.pretrained_model).merge_and_unload(adapter_names=[POLICY_ADAPTER])
    merged.save_pretrained(folder)


def read_strictly(file: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises UserError unless names and shapes are the expected ones."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} cannot be read ({error}); the checkpoint is damaged or incomplete") from error
    for name in sorted(found.keys() | expected.keys()):
        if name not in found:
            raise UserError(f"{file}: tensor {name!r} is missing; this file belongs to another policy or is damaged")
        if name not in expected:
            raise UserError(f"{file}: tensor {name!r} has no place in this policy; check model and lora")
        if found[name].shape != expected[name].shape:
            shapes = f"{tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
            raise UserError(f"{file}: tensor {name!r} has shape {shapes}; check model and lora")
    return found
