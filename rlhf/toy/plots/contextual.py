"""Pictures of the contextual bandit: the way up, and random against PPO against optimal."""

from pathlib import Path

import numpy as np

from rlhf.toy.contextual import Test, Trained
from rlhf.toy.plots.style import BLUE, GRAY, GREEN, INK, band, figure, house_style, note, save


@house_style
def draw(output_dir: Path, trained: Trained, outcome: Test, first_seed: int) -> None:
    """Write contextual.png."""
    fig, ((curve, boxes, seeds),) = figure(1, 3, 12, 3.9)

    earned = trained.rewards.numpy() / outcome.optimal.mean(-1).numpy()  # [updates, S]
    band(curve, np.arange(len(earned)), earned, BLUE, "reward of the batch / optimum")
    band(curve, np.arange(len(earned)), trained.explained.numpy(), GREEN, "variance the critic explains")
    curve.axhline(1, color=GRAY, linestyle="--", linewidth=1.2)
    curve.set(title="Training", xlabel="update", ylabel="fraction", ylim=(-0.4, 1.25))
    curve.legend(loc="lower right")

    policies = {"random": outcome.random, "PPO": outcome.ppo, "optimal": outcome.optimal}
    drawn = boxes.boxplot(
        [rewards.flatten().numpy() for rewards in policies.values()],
        tick_labels=[f"{name}\nmean {rewards.mean():.2f}" for name, rewards in policies.items()],
        patch_artist=True, widths=0.55, showfliers=False, medianprops={"color": INK},
        showmeans=True, meanprops={"marker": "D", "markerfacecolor": "white", "markeredgecolor": INK, "markersize": 5},
    )  # fmt: skip
    for box, color in zip(drawn["boxes"], (GRAY, BLUE, GREEN), strict=True):
        box.set(facecolor=color, alpha=0.55, edgecolor=INK)
    boxes.set(title="Random, PPO, optimal", ylabel="expected reward of the action")
    boxes.grid(axis="x", visible=False)

    gap = 100 * outcome.gap_closed.numpy()
    numbers = np.arange(first_seed, first_seed + len(gap))
    seeds.plot(numbers, gap, "o", color=BLUE, markersize=7)
    seeds.axhline(gap.mean(), color=BLUE, linewidth=1.2)
    seeds.axhline(100, color=GRAY, linestyle="--", linewidth=1.2)
    note(seeds, 0.02, 0.03, f"mean over seeds {gap.mean():.1f}%", BLUE)
    seeds.set(title="Gap closed, seed by seed", xlabel="seed", ylabel="share of the random-to-optimal gap (%)")
    seeds.set(ylim=(min(98.0, np.floor(gap.min()) - 1), 100.2), xticks=numbers)
    save(fig, output_dir / "contextual.png")
