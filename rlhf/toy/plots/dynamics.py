"""Pictures of the dynamics: the balance of forces in one setting, and what upsets it."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rlhf.toy.config import DynamicsConfig
from rlhf.toy.dynamics import swept_value
from rlhf.toy.forces import BEST_REWARD, Traces
from rlhf.toy.plots.style import BLUE, GRAY, GREEN, PURPLE, RED, YELLOW, band, figure, house_style, note, save
from rlhf.toy.story import BAND

SMOOTH = 10


def draw(output_dir: Path, config: DynamicsConfig, groups: dict[str, list[DynamicsConfig]], traces: Traces) -> None:
    """Write dynamics.png and dynamics_sweeps.png."""
    forces(output_dir / "dynamics.png", config, traces)
    sweeps(output_dir / "dynamics_sweeps.png", groups, traces)


def smooth(runs: Tensor) -> np.ndarray:
    """Trailing mean over SMOOTH updates: [updates, seeds] -> the same."""
    padded = torch.cat([runs[:1].expand(SMOOTH - 1, -1), runs])
    return padded.unfold(0, SMOOTH, 1).mean(-1).numpy()


@house_style
def forces(path: Path, config: DynamicsConfig, traces: Traces) -> None:
    """Reward, KL against its target, the two forces, and the batch noise of the first setting."""
    fig, ((reward, kl), (force, noise)) = figure(2, 2, 10.5, 6.4, sharex=True)
    x = np.arange(len(traces.kl))

    reward.plot(x, traces.reward[:, 0, 0].numpy(), color=YELLOW, linewidth=0.8, label=f"batch mean, seed {config.seed}")
    band(reward, x, traces.expected_reward[:, 0].numpy(), BLUE, "expectation under the policy")
    reward.legend(loc="lower right")
    reward.axhline(BEST_REWARD, color=GRAY, linestyle="--", linewidth=1.2)
    note(reward, 0.98, 0.93, "always the better action: 0.70", GRAY, ha="right")
    reward.set(title="Reward: up until the penalty holds it", ylabel="reward per action", ylim=(0, 0.77))

    kl.axhspan(*(f * config.kl_target for f in BAND), color=GREEN, alpha=0.1, linewidth=0, label="band: target ± 50%")
    kl.axhline(config.kl_target, color=GREEN, linestyle="--", linewidth=1.2, label=f"target {config.kl_target:g}")
    band(kl, x, traces.kl[:, 0].numpy(), PURPLE, "KL(policy || reference)")
    kl.plot(x, traces.kl[:, 0, 0].numpy(), color=PURPLE, linewidth=0.7, alpha=0.7, label=f"seed {config.seed} alone")
    kl.set(title="KL: held near its target", ylabel="nats per action", ylim=(0, 2.2 * config.kl_target))
    kl.legend(loc="lower right", ncols=2)

    band(force, x, smooth(traces.push[:, 0]), BLUE, "push: reward, away from the reference")
    band(force, x, smooth(traces.pull[:, 0]), RED, "pull: KL penalty, back to the reference")
    force.axhline(0, color=GRAY, linewidth=0.8)
    force.set(
        title=f"Forces along the KL gradient (mean of {SMOOTH})",
        xlabel="update",
        ylabel="force (loss per unit of weight)",
    )
    force.legend(loc="lower right")

    variance = traces.reward_variance[:, 0].numpy()
    band(noise, x, np.sqrt(variance), YELLOW, "std of one reward")
    band(noise, x, np.sqrt(variance / config.batch_size), GREEN, f"std of the mean of {config.batch_size}")
    noise.set(title="Batch noise", xlabel="update", ylabel="standard deviation of the reward", ylim=(0, None))
    noise.legend(loc="center right")
    save(fig, path)


@house_style
def sweeps(path: Path, groups: dict[str, list[DynamicsConfig]], traces: Traces) -> None:
    """A column per swept quantity, reward above and KL as a multiple of its target below, a color per value."""
    fig, axes = figure(2, len(groups), 3.3 * len(groups), 6, sharex=True, sharey="row")
    x = np.arange(len(traces.kl))
    setting = 1  # setting 0 is the run itself
    for column, (name, group) in enumerate(groups.items()):
        reward, kl = axes[:, column]
        for s, color in zip(group, (YELLOW, BLUE, RED), strict=True):
            band(reward, x, traces.expected_reward[:, setting].numpy(), color, swept_value(name, s))
            band(kl, x, traces.kl[:, setting].numpy() / s.kl_target, color)
            setting += 1
        reward.set_title(name)
        reward.legend(loc="lower right", ncols=len(group), columnspacing=1, handlelength=1.2)
        kl.axhspan(*BAND, color=GREEN, alpha=0.1, linewidth=0)
        kl.axhline(1, color=GREEN, linestyle="--", linewidth=1.2)
        kl.set_xlabel("update")
    axes[0, 0].set(ylabel="expected reward per action", ylim=(0.1, 0.66))
    axes[1, 0].set(ylabel="KL / target", ylim=(0, 6))
    note(axes[1, 0], 0.97, 0.31, "band", GREEN, ha="right")
    save(fig, path)
