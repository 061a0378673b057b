"""Pictures of the bandit: learning curves, and the learned policies on the closed form."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rlhf.toy.bandit import MEANS, METHODS, REFERENCES, Learned
from rlhf.toy.plots.style import (
    BLUE,
    CYCLE,
    GRAY,
    GREEN,
    INK,
    RED,
    YELLOW,
    band,
    figure,
    house_style,
    note,
    save,
    shared_legend,
)


def draw(
    output_dir: Path, curves: dict[str, Learned], penalized: Learned, optimum: Tensor, kl_coefs: Sequence[float]
) -> None:
    """Write bandit_methods.png and bandit_closed_form.png."""
    methods(output_dir / "bandit_methods.png", curves)
    closed_form(output_dir / "bandit_closed_form.png", penalized, optimum, kl_coefs)


@house_style
def methods(path: Path, curves: dict[str, Learned]) -> None:
    """Expected reward of each method against pulls, and what PPO does to the five arms."""
    fig, ((left, right),) = figure(1, 2, 10, 3.9)
    for (method, learned), color in zip(curves.items(), (YELLOW, RED, BLUE), strict=True):
        rewards = (learned.probabilities @ torch.tensor(MEANS)).squeeze(-1).numpy()  # [updates + 1, S]
        band(left, np.arange(len(rewards)) * learned.pulls_per_update, rewards, color, method)
    left.axhline(max(MEANS), color=GRAY, linestyle="--", linewidth=1.2)
    note(left, 0.02, 0.955, "best arm: 0.80", GRAY, va="top")
    left.set(title="Expected reward of the policy", xlabel="arms pulled", ylabel="expected reward per pull")
    left.set_ylim(0.35, 0.84)
    left.legend(loc="lower right")

    policies = curves[METHODS[-1]].probabilities[:, :, 0].numpy()  # [updates + 1, S, A]
    pulls = np.arange(len(policies)) * curves[METHODS[-1]].pulls_per_update
    for arm, mean in enumerate(MEANS):
        band(right, pulls, policies[..., arm], CYCLE[arm], f"arm {arm}, mean {mean:.1f}")
    right.set(title="What PPO pulls", xlabel="arms pulled", ylabel="probability of the arm", ylim=(0, 1))
    right.legend(loc="center right")
    save(fig, path)


@house_style
def closed_form(path: Path, penalized: Learned, optimum: Tensor, kl_coefs: Sequence[float]) -> None:
    """One panel per reference and beta: bars are pi_ref exp(r / beta) / Z, dots what PPO learned."""
    references = list(REFERENCES.items())
    columns = len(kl_coefs)
    fig, axes = figure(len(references), columns, 2.1 * columns, 5.6, sharex=True, sharey=True)
    learned = penalized.final.numpy()  # [S, C, A]
    distance = (penalized.final - optimum).abs().sum(-1).mean(0) / 2
    arms = np.arange(len(MEANS))
    for setting, ax in enumerate(axes.flat):
        name, reference = references[setting // columns]
        ax.bar(arms, optimum[setting].numpy(), color="#c9dbf0", edgecolor=BLUE, linewidth=0.8, label="closed form")
        ax.hlines(reference, arms - 0.4, arms + 0.4, color=GRAY, linestyle=":", linewidth=1.6, label="reference")
        ax.errorbar(
            arms, learned[:, setting].mean(0), learned[:, setting].std(0),
            fmt="o", color=RED, markersize=4.5, capsize=2, linewidth=1.2, label="PPO, mean ± std over seeds",
        )  # fmt: skip
        note(ax, 0.97, 0.95, f"TV {distance[setting]:.4f}", GREEN, ha="right", va="top")
        ax.grid(axis="x", visible=False)
        if setting % columns == 0:
            ax.set_ylabel(f"reference:\n{name}", color=INK)
        if setting // columns == len(references) - 1:
            ax.set_xlabel("arm")
    for ax, beta in zip(axes[0], kl_coefs, strict=True):
        ax.set_title(f"β = {beta:g}", loc="center")
    axes[0, 0].set(ylim=(0, 1.05), xticks=arms)
    shared_legend(fig, axes[0, 0])
    save(fig, path)
