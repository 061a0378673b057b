"""Whether a run fits into the memory of this machine."""

import torch

from rlhf.config import PPOConfig
from rlhf.config.checks import require
from rlhf.doctor.check import Check, failure, ok, warning
from rlhf.doctor.footprint import footprint
from rlhf.doctor.remedies import of_peak, of_weights
from rlhf.models.device_memory import NEARLY_FULL, amount, room
from rlhf.models.load import default_device
from rlhf.models.precision import torch_dtype
from rlhf.models.pretrained import load_pretrained
from rlhf.policy.merged import copies
from rlhf.policy.policy import Policy


def check_weights_fit(config: PPOConfig) -> Check | None:
    """Before anything is loaded: a model whose weights alone are too large for this machine; None if they are not.

    A model that is trained in full is there once more as the reference, and again as a critic with a trunk of its own.
    Of a base in four bits it says nothing: it is counted when it has been loaded. Without a name loading says so.
    """
    model_config = config.model
    require(
        model_config.scratch is None,
        "model.scratch is for SFT only; train that model with rlhf sft, and name its folder in model.name_or_path",
    )
    if model_config.quantization is not None or model_config.name_or_path is None:
        return None
    from transformers import AutoConfig, AutoModelForCausalLM

    trust = model_config.trust_remote_code
    architecture = load_pretrained(AutoConfig, model_config.name_or_path, trust, model_config.gguf_file)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            architecture, dtype=torch_dtype(model_config.dtype), trust_remote_code=trust
        )
    roles = ["policy", "reference"] if config.lora is None else []
    roles += ["critic"] if config.uses_critic and config.critic == "separate" else []
    once, available = sum(p.numel() * p.element_size() for p in model.parameters()), room(default_device())
    needed = once * max(1, len(roles))
    if needed <= available:
        return None
    of = f" as {' and '.join(roles)}" if roles else ""
    found = f"the weights take {amount(needed)}{of}, this machine has room for {amount(available)}"
    return failure("memory", found, of_weights(config))


def check_memory(config: PPOConfig, policy: Policy, prompt_tokens: int) -> Check:
    """The peak of an update fits into what is free; otherwise the settings that would lower it, and how far."""
    estimate, available = footprint(config, policy, prompt_tokens), room(policy.device)
    parts = ", ".join(f"{name} {amount(size)}" for name, size in vars(estimate).items() if size)
    found = f"about {amount(estimate.peak)} at the peak, room for {amount(available)}: {parts}"
    if policy.is_peft and not copies(policy):
        found += "; decoding with the adapters beside the weights, not merged"
    if estimate.peak <= NEARLY_FULL * available:
        return ok("memory", found)
    fix = of_peak(estimate, config, policy, prompt_tokens)
    return failure("memory", found, fix) if estimate.peak > available else warning("memory", found, fix)
