"""Pictures of the tiny language model: the reward hack, and PPO token by token."""

from pathlib import Path

import numpy as np
import torch

from rlhf.toy import sorting
from rlhf.toy.config import TinyLMConfig
from rlhf.toy.plots.style import BLUE, GRAY, GREEN, INK, PURPLE, RED, YELLOW, band, figure, house_style, note, save
from rlhf.toy.tiny_lm import WITH_PENALTY, WITHOUT_PENALTY, Batch, Trained

COLORS = {WITH_PENALTY: BLUE, WITHOUT_PENALTY: RED}


def draw(output_dir: Path, config: TinyLMConfig, runs: dict[str, list[Trained]]) -> None:
    """Write tiny_lm_hack.png and tiny_lm_tokens.png."""
    hack(output_dir / "tiny_lm_hack.png", config, runs)
    tokens(output_dir / "tiny_lm_tokens.png", config, runs[WITH_PENALTY][0])


@house_style
def hack(path: Path, config: TinyLMConfig, runs: dict[str, list[Trained]]) -> None:
    """Reward, real success, length and KL, with and without the KL penalty."""
    fig, axes = figure(2, 2, 10.5, 6.2, sharex=True)
    panels = {
        "score": ("What is rewarded", "score per response"),
        "solved": ("What is wanted", "share of prompts sorted exactly"),
        "tokens": ("How the hack works: length", "tokens per response"),
        "kl": ("How far from the reference", "KL per response (nats)"),
    }
    for ax, (key, (title, label)) in zip(axes.flat, panels.items(), strict=True):
        for name, of in runs.items():
            values = np.array([[record[key] for record in run.records] for run in of]).T  # [updates, seeds]
            band(ax, np.arange(len(values)), values, COLORS[name], name)
        ax.set(title=title, ylabel=label)
    score, solved, length, kl = axes.flat
    honest = sorting.STEP_UP * (config.digits - 1)
    score.axhline(honest, color=GRAY, linestyle="--", linewidth=1.2)
    note(score, 0.98, 0.05, f"dashed: a sorted response earns {honest:.1f}", GRAY, ha="right")
    length.axhline(config.digits + 1, color=GRAY, linestyle="--", linewidth=1.2)
    note(length, 0.98, 0.11, f"dashed: {config.digits} digits and EOS", GRAY, ha="right")
    solved.set_ylim(0, 1.03)
    kl.set_yscale("symlog", linthresh=1)
    kl.set_ylim(0, None)
    score.legend(loc="upper left")
    for ax in (length, kl):
        ax.set_xlabel("PPO update")
    save(fig, path)


@house_style
def tokens(path: Path, config: TinyLMConfig, trained: Trained) -> None:
    """Rewards, values, advantages and ratios of two responses of one real batch: a sorted one, and one with a slip."""
    batch = trained.shown
    fig, axes = figure(2, 4, 14, 5.8, sharey="col")
    for row, (kind, index) in enumerate((("sorted", _pick(batch, True)), ("a slip", _pick(batch, False)))):
        _row(axes[row], config, batch, trained.ratios, index)
        axes[row, 0].set_ylabel(f"{kind}: {sorting.text(batch.response.ids[index], config.digits)}\nreward per token")
    titles = ("Rewards: KL charge, score", "Values and returns", "Advantages, whitened", "Ratios after the update")
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    for ax in axes[0, :2]:
        ax.legend(loc="best")
    for ax in axes[1]:
        ax.set_xlabel("response token (■ is EOS)")
    save(fig, path)


def _pick(batch: Batch, solved: bool) -> int:
    """The first response of the batch that is solved, or not; the first of all where there is none."""
    of_kind = (batch.solved == solved).nonzero().flatten()
    return int(of_kind[0]) if len(of_kind) else 0


def _row(axes: np.ndarray, config: TinyLMConfig, batch: Batch, ratios: torch.Tensor, index: int) -> None:
    rewards_ax, values_ax, advantages_ax, ratios_ax = axes
    n = int(batch.response.response_mask[index].sum())
    x = np.arange(n)
    names = [sorting.token_text(int(token)) for token in batch.response.response_ids[index, :n]]
    rewards, kl = batch.rewards[index, :n].numpy(), batch.kl[index, :n].numpy()
    charge = -config.kl_coef * kl
    rewards_ax.bar(x, rewards - charge, color=GREEN, alpha=0.8, label="score")
    rewards_ax.bar(x, charge, color=PURPLE, alpha=0.8, label="−β · KL")

    values_ax.plot(x, batch.old_values[index, :n].numpy(), "o-", color=YELLOW, label="value: predicted")
    values_ax.plot(x, batch.returns[index, :n].numpy(), "s--", color=BLUE, label="return: GAE's target")

    advantages = batch.advantages[index, :n].numpy()
    advantages_ax.bar(x, advantages, color=np.where(advantages >= 0, GREEN, RED), alpha=0.8)

    ratios_ax.bar(x, ratios[index, :n].numpy() - 1, bottom=1, color=BLUE, alpha=0.8)
    for bound in (1 - config.clip_range, 1 + config.clip_range):
        ratios_ax.axhline(bound, color=RED, linestyle=":", linewidth=1.4)
    note(ratios_ax, 0.98, 0.88, f"clip bounds 1 ± {config.clip_range:g}", RED, ha="right", va="top")
    for ax in (rewards_ax, advantages_ax):
        ax.axhline(0, color=INK, linewidth=0.8)
    ratios_ax.axhline(1, color=INK, linewidth=0.8)
    for ax in axes:
        ax.set_xticks(x, names)
        ax.grid(axis="x", visible=False)
