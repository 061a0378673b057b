"""Adapters for the PEFT of TRL 0.11's days (0.13), which refuses an adapter_config.json with keys that came later."""

import json
from pathlib import Path
from typing import Any

from rlhf.classic.weight_files import ADAPTER_CONFIG
from rlhf.config.checks import require

OLD_KEYS = {
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layer_replication",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "megatron_config",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "r",
    "rank_pattern",
    "revision",
    "target_modules",
    "task_type",
    "use_dora",
    "use_rslora",
}
"""What LoRA's adapter_config.json held in PEFT 0.13."""


def check_readable_by_old_peft(configs: dict[str, Any]) -> None:
    """Raise UserError for adapters that are not LoRA, or use what came later and changes what they compute."""
    for name, config in configs.items():
        require(
            config.peft_type == "LORA",
            f"trl_0_11 is for LoRA; adapter {name!r} is {config.peft_type.value}",
        )
        settings, defaults = config.to_dict(), type(config)().to_dict()
        later = {key for key in settings.keys() - OLD_KEYS - {"peft_version"} if settings[key] != defaults[key]}
        require(
            not later, f"adapter {name!r} uses {', '.join(sorted(later))}, which the PEFT of TRL 0.11 does not have"
        )


def write_for_old_peft(folder: Path) -> None:
    """Leave in every adapter_config.json of a folder what PEFT 0.13 knows."""
    for file in folder.rglob(ADAPTER_CONFIG):
        settings = json.loads(file.read_text(encoding="utf-8"))
        known = {key: value for key, value in settings.items() if key in OLD_KEYS}
        file.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")
