"""The dynamics toy: what happens to a policy with a KL penalty, and what upsets it, one quantity at a time."""

from dataclasses import replace

from rlhf.toy.config import DynamicsConfig

NO_CLIP = 1e6  # a clip range that no ratio reaches


def sweeps(config: DynamicsConfig) -> dict[str, list[DynamicsConfig]]:
    """What to vary, one quantity at a time; the clip range where steps are large enough for it to matter."""
    large_steps = 10 * config.lr
    return {
        "batch size": [replace(config, batch_size=n) for n in (4, 16, 128)],
        "KL target (nats)": [replace(config, kl_target=t) for t in (0.03, 0.1, 0.3)],
        f"clip range, at lr {large_steps:g}": [
            replace(config, clip_range=c, lr=large_steps) for c in (0.02, 0.2, NO_CLIP)
        ],
        "learning rate": [replace(config, lr=lr) for lr in (1e-3, 1e-2, 1.0)],
    }


def swept_value(sweep: str, setting: DynamicsConfig) -> str:
    """The value that a setting of a sweep has for what is swept."""
    if sweep.startswith("clip range") and setting.clip_range == NO_CLIP:
        return "off"
    names = {"batch": "batch_size", "KL": "kl_target", "clip": "clip_range", "learning": "lr"}
    return f"{getattr(setting, names[sweep.split()[0]]):g}"
