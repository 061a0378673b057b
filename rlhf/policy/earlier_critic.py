"""The critic of an earlier run, to go on with where its policy has been merged into the base.

Its value head reads the same features as before. Adapters of its own were trained beside the policy's, on a base W that
is W + D now, with D the policy's change. So that it says what it said, D has to come out again: the new adapters hold
C - D, where the old ones held C, in the sum of both ranks.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from rlhf.config import WITH_ADAPTERS, Critic, LoraConfig
from rlhf.config.checks import require
from rlhf.models.adapters import ADAPTER_FILE, POLICY_FILE, locate
from rlhf.models.pretrained import resolve_model_path
from rlhf.policy.files import CRITIC_FOLDER, VALUE_HEAD_FILE, read_safetensors, read_strictly, read_weights
from rlhf.policy.policy import Policy
from rlhf.policy.value_head import CRITIC_ADAPTER

OURS, TRLS = "summary.", "v_head.summary."
KINDS = {"adapter": "critic with adapters", "branch": "branch as its critic", "separate": "critic with a trunk"}


class Adapters(NamedTuple):
    """Of a critic: rank and scale (None: the policy's), and how many blocks of a branch (None: a quarter)."""

    lora: LoraConfig | None
    layers: int | None


def earlier_adapters(folder: str, critic: Critic, layers: int | None) -> Adapters | None:
    """The adapters that a critic needs to go on where those in a policy's folder were; None where it had none.

    Raises UserError unless the folder holds a critic of that kind, with as many layers (None: as it has).
    """
    where = resolve_model_path(folder)
    file = Path(where) / POLICY_FILE
    if not file.is_file():
        kind = KINDS.get(critic, "critic")
        require(
            critic in ("shared", "detached") and locate(where, "model.safetensors") is not None,
            f"keep_critic is true, but model {folder!r} has no {kind}; name the policy folder of a PPO run, or set "
            "keep_critic: false",
        )
        return None
    said = json.loads(file.read_text())
    require(
        said["critic"] == critic,
        f"keep_critic is true and critic is {critic!r}, but that of {folder!r} is {said['critic']!r}; make it that",
    )
    if critic not in WITH_ADAPTERS:
        return None
    rank = said["lora"]["r"] + said.get("critic_lora", said["lora"])["r"]
    there = said.get("critic_layers")
    require(
        layers in (None, there),
        f"keep_critic is true and critic_layers is {layers}, but that of {folder!r} is {there}; make it that",
    )
    return Adapters(LoraConfig(**{**said["lora"], "r": rank, "alpha": rank}), there)


def take_critic(policy: Policy, folder: str) -> None:
    """Give a policy, on a base into which the policy in the folder is merged, the critic from there; see above.

    Raises UserError where a tensor is missing, left over or of another shape.
    """
    where = Path(resolve_model_path(folder))
    head = policy.wrapper.v_head
    if (where / POLICY_FILE).is_file():
        head.load_state_dict(read_strictly(where / VALUE_HEAD_FILE, head.state_dict()))
        if policy.critic == "separate":
            read_weights(policy.wrapper.critic_trunk, where / CRITIC_FOLDER)
        if policy.critic in WITH_ADAPTERS:
            _take_adapters(policy, where)
    else:
        file = locate(str(where), "model.safetensors")
        assert file is not None  # `earlier_adapters` has looked
        stored = {k.replace(TRLS, OURS): v for k, v in read_safetensors(file).items() if k.startswith(TRLS)}
        require(sorted(stored) == sorted(head.state_dict()), f"keep_critic is true, but {file} has no {TRLS}weight")
        head.load_state_dict(stored)
    policy.new_critic = False


def _take_adapters(policy: Policy, folder: Path) -> None:
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    said = json.loads((folder / POLICY_FILE).read_text())
    of_policy, of_critic = (LoraConfig(**said[key]) if key in said else None for key in ("lora", "critic_lora"))
    assert of_policy is not None
    of_critic = of_critic or of_policy
    change = read_safetensors(folder / ADAPTER_FILE)
    critic = read_safetensors(folder / CRITIC_ADAPTER / ADAPTER_FILE)
    joined: dict[str, Tensor] = {}
    for name in critic:
        require(name in change, f"{folder}: {name!r} is in the critic's adapters, but not in the policy's")
        if ".lora_A." in name:
            joined[name] = torch.cat([critic[name], change[name]])
        else:
            scaled = (critic[name] * of_critic.alpha / of_critic.r, -change[name] * of_policy.alpha / of_policy.r)
            joined[name] = torch.cat(scaled, dim=1)
    assert policy.lora is not None  # the config says so
    peft_model = policy.wrapper.pretrained_model
    expected = get_peft_model_state_dict(peft_model, adapter_name=CRITIC_ADAPTER, save_embedding_layers=False)
    same = {name: tuple(tensor.shape) for name, tensor in joined.items()} == {
        name: tuple(tensor.shape) for name, tensor in expected.items()
    }
    require(
        same,
        f"keep_critic is true, but the critic's adapters in {folder} are on other layers than lora.target_modules "
        f"{policy.lora.target_modules!r} names, or on experts; take {asdict(of_policy)['target_modules']!r}, or "
        "keep_critic: false",
    )
    set_peft_model_state_dict(peft_model, joined, adapter_name=CRITIC_ADAPTER)
