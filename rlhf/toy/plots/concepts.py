"""Figures of the ideas; every curve comes out of `rlhf.maths.losses`."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rlhf.maths.advantages import kl_shaped_rewards
from rlhf.maths.kl import kl_estimate, kl_from_logits
from rlhf.maths.losses import clipped_policy_loss
from rlhf.toy.bandit import MEANS, REFERENCES, optimal_policy
from rlhf.toy.plots.style import BLUE, GRAY, GREEN, INK, PURPLE, RED, YELLOW, figure, house_style, note, save

CLIP_RANGE, DUAL_CLIP = 0.2, 3.0
BETAS = (0.05, 0.1, 0.2, 0.5)
PLAIN = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}  # behind a label that lies on a line
SHADES = ("#a9c4e6", "#6f9fd3", "#3b6fb6", "#1f4278")  # the larger beta, the darker


def draw(output_dir: Path) -> dict[str, str]:
    """Write the figures; returns {file name: what it shows}."""
    clip(output_dir / "clip.png")
    kl_penalty(output_dir / "kl_penalty.png")
    kl_estimators(output_dir / "kl_estimators.png")
    return {
        "clip.png": "the clipped objective for good and bad tokens, and the dual clip",
        "kl_penalty.png": "what the KL penalty costs, and what it buys, for several beta",
        "kl_estimators.png": "k1, k2, k3: their values, their bias, their noise",
    }


def objective(ratio: Tensor, advantage: float, dual_clip: float | None = None) -> np.ndarray:
    """What PPO maximizes at each ratio [N]: minus the loss of a single token."""
    log_ratio = ratio.log().view(-1, 1, 1)
    one = torch.ones(1, 1)
    losses = [clipped_policy_loss(r, 0 * one, advantage * one, one.bool(), CLIP_RANGE, dual_clip)[0] for r in log_ratio]
    return -torch.stack(losses).numpy()


@house_style
def clip(path: Path) -> None:
    """The objective of one token against its ratio, for A = 1 and A = -1."""
    fig, axes = figure(1, 2, 10, 3.9)
    for ax, advantage, longest in ((axes[0, 0], 1.0, 2.0), (axes[0, 1], -1.0, 4.0)):
        ratio = torch.linspace(0.01, longest, 400)
        x, unclipped, clipped = ratio.numpy(), advantage * ratio.numpy(), objective(ratio, advantage)
        ax.plot(x, unclipped, color=GRAY, linestyle="--", linewidth=1.4, label="unclipped: r · A")
        ax.fill_between(x, clipped, unclipped, color=RED, alpha=0.15, linewidth=0, label="gain the clip takes away")
        ax.plot(x, clipped, color=BLUE, linewidth=2.6, label="PPO")
        for bound in (1 - CLIP_RANGE, 1 + CLIP_RANGE):
            ax.axvline(bound, color=RED, linestyle=":", linewidth=1.1)
        ax.plot(1, advantage, "o", color=INK, markersize=5, zorder=5)
        ax.annotate(
            "start: r = 1", (1, advantage), (6, -14 if advantage > 0 else 8), textcoords="offset points", bbox=PLAIN
        )
        ax.set(xlabel="ratio r = π / π_old", xlim=(0, longest))
    good, bad = axes[0]
    bad.plot(
        x, objective(ratio, -1.0, DUAL_CLIP), color=PURPLE, linewidth=1.8, linestyle="-.", label="with dual clip 3"
    )
    good.set(title="Good token, A = 1: flat above 1.2", ylabel="objective", ylim=(0, 2))
    bad.set(title="Bad token, A = −1: flat below 0.8", ylim=(-4.2, 0.2))
    good.legend(loc="upper left")
    bad.legend(loc="upper right")
    save(fig, path)


@house_style
def kl_penalty(path: Path) -> None:
    """Left: the RLHF reward of a response against its KL. Right: reward and KL of the best policy for each beta."""
    fig, ((cost, frontier),) = figure(1, 2, 10, 3.9)
    kl = torch.linspace(0, 30, 61).unsqueeze(1)  # one token per response carries all of it
    for beta, color in zip(BETAS, SHADES, strict=True):
        total = kl_shaped_rewards(torch.full((len(kl),), 8.0), kl, torch.ones_like(kl).bool(), beta).sum(-1)
        cost.plot(kl[:, 0], total, color=color, label=f"β = {beta:g}")
    cost.axhline(0, color=INK, linewidth=0.8)
    cost.axhspan(-7, 0, color=RED, alpha=0.07, linewidth=0)
    note(cost, 0.03, 0.06, "not worth its distance", RED)
    cost.set(title="What the KL penalty costs: 8 − β · KL", xlabel="KL of the response (nats)", ylabel="total reward")
    cost.set(ylim=(-7, 8.6))
    cost.legend(loc="lower left", bbox_to_anchor=(0, 0.13))

    for (name, reference), color in zip(REFERENCES.items(), (BLUE, YELLOW, GREEN), strict=True):
        betas = torch.logspace(-1.7, 1, 80)
        references = torch.tensor(reference).expand(len(betas), -1)
        best = optimal_policy(references, betas)
        distance, reward = kl_from_logits(best.log(), references.log()), best @ torch.tensor(MEANS)
        frontier.plot(distance, reward, color=color, label=f"reference: {name}")
        for beta in BETAS:
            at = int((betas - beta).abs().argmin())
            frontier.plot(distance[at], reward[at], "o", color=color, markersize=5)
            if name == "uniform":
                side = "left" if beta == min(BETAS) else "right"
                place = (-2 if side == "left" else -6, 6)
                label = f"β = {beta:g}"
                frontier.annotate(label, (distance[at], reward[at]), place, textcoords="offset points", ha=side)
    frontier.set(title="What it buys: the best policy for each β", xlabel="KL from the reference (nats)")
    frontier.set(ylabel="expected reward of the bandit", xlim=(-0.7, None), ylim=(0.27, 0.86))
    frontier.legend(loc="lower right")
    save(fig, path)


@house_style
def kl_estimators(path: Path) -> None:
    """Values against d = log pi - log pi_ref; then, exactly over a 50-token vocabulary, bias and noise against KL."""
    fig, ((shape, bias, noise),) = figure(1, 3, 12, 3.8)
    d = torch.linspace(-2, 2, 200)
    direction = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    steps = torch.logspace(-1.5, 0.3, 60, dtype=torch.float64).unsqueeze(1)
    logits, ref_logits = (steps * direction).log_softmax(-1), torch.zeros(50, dtype=torch.float64).log_softmax(-1)
    exact = kl_from_logits(logits, ref_logits)
    colors: dict[str, str] = {"k1": BLUE, "k2": RED, "k3": GREEN}
    for name, color in colors.items():
        shape.plot(d, kl_estimate(d, torch.zeros_like(d), name), color=color, label=name)
        estimate = kl_estimate(logits, ref_logits.expand_as(logits), name)  # of every token that could be sampled
        mean = (logits.exp() * estimate).sum(-1)
        std = (logits.exp() * (estimate - mean.unsqueeze(-1)) ** 2).sum(-1).sqrt()
        dashes = (0, (4, 4)) if name == "k3" else "-"  # k1 and k3 have the same mean: draw one over the other
        bias.plot(exact, mean / exact, color=color, linestyle=dashes, label=name)
        noise.plot(exact, std / exact, color=color, label=name)
    shape.axhline(0, color=INK, linewidth=0.8)
    shape.set(title="Per token", xlabel="d = log π − log π_ref", ylabel="estimate (nats)", ylim=(-2, 4.5))
    bias.set(title="Bias: only k2 has any", ylabel="mean of the estimate / exact KL", ylim=(0.6, 1.6))
    noise.set(title="Noise: k1's is the largest near home", ylabel="std of one token / exact KL", yscale="log")
    for ax in (bias, noise):
        ax.set(xlabel="exact KL (nats)", xscale="log")
    for ax in (shape, bias, noise):
        ax.legend(loc="upper right" if ax is noise else "upper left")
    save(fig, path)
