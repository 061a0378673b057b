"""Two diagrams in boxes and arrows: the value head, and PPO's five steps."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from rlhf.toy.plots.style import BLUE, GRAY, GREEN, INK, PURPLE, RED, YELLOW, figure, house_style, save


def draw(output_dir: Path) -> dict[str, str]:
    """Write the diagrams; returns {file name: what it shows}."""
    value_head(output_dir / "value_head.png")
    five_steps(output_dir / "five_steps.png")
    return {
        "value_head.png": "one trunk, two heads: the next token, and the reward still to come",
        "five_steps.png": "sample, score, credit, update, report: the loop and its functions",
    }


def box(ax: Axes, x: float, y: float, width: float, height: float, title: str, text: str, color: str) -> None:
    """A rounded box around (x, y) with a bold title and a line below it."""
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.12"
    ax.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=color + "22", edgecolor=color, lw=1.8))
    lines = text.count("\n") + 1 if text else 0
    ax.text(x, y + 0.14 * lines, title, ha="center", va="center", fontsize=11, fontweight="bold", color=INK)
    if text:
        ax.text(x, y - 0.2, text, ha="center", va="center", fontsize=9, color=INK, linespacing=1.35)


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "", bend: float = 0.0) -> None:
    """An arrow, perhaps bent, with a text at its middle."""
    ax.annotate(
        "", end, start,
        arrowprops={"arrowstyle": "-|>", "color": GRAY, "lw": 1.8, "connectionstyle": f"arc3,rad={bend}"},
    )  # fmt: skip
    if text:
        ax.text((start[0] + end[0]) / 2 + 0.1, (start[1] + end[1]) / 2, text, fontsize=9, color=INK, va="center")


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure measured in inches."""
    fig, ((ax,),) = figure(1, 1, width, height)
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.axis("off")
    return fig, ax


@house_style
def value_head(path: Path) -> None:
    """Tokens, trunk, and the two heads with their shapes."""
    fig, ax = canvas(8, 5)
    box(ax, 4, 0.6, 4.6, 0.8, "prompt and response so far", "token ids  [B, P + T]", GRAY)
    box(ax, 4, 2.2, 4.6, 1.1, "transformer", "attention and perceptron blocks, shared by both heads", BLUE)
    box(ax, 2, 4.1, 3.4, 1.1, "LM head", "Linear(H → V)\nπ(next token)  [B, T, V]", GREEN)
    box(ax, 6, 4.1, 3.4, 1.1, "value head", "Linear(H → 1)\nreward still to come  [B, T]", RED)
    arrow(ax, (4, 1.0), (4, 1.65))
    arrow(ax, (3.2, 2.75), (2.2, 3.55))
    arrow(ax, (4.8, 2.75), (5.8, 3.55))
    ax.text(4, 3.15, "hidden states  [B, T, H]", fontsize=9, ha="center", va="center")
    save(fig, path)


@house_style
def five_steps(path: Path) -> None:
    """The loop of PPO with the function that does each step."""
    fig, ax = canvas(12.4, 4)
    steps = (
        ("1  sample", "responses from the policy;\nlogprobs, ref_logprobs,\nvalues", BLUE),
        ("2  score", "reward of the text,\nKL charge per token:\nkl_shaped_rewards", GREEN),
        ("3  credit", "gae, whiten:\nwhich token did better\nthan expected", YELLOW),
        ("4  update", "clipped_policy_loss +\nclipped_value_loss,\nseveral epochs", RED),
        ("5  report", "reward, KL, clip fraction;\nkl_coef follows\nits target", PURPLE),
    )
    for i, (title, text, color) in enumerate(steps):
        x = 1.25 + 2.47 * i
        corner = (x - 1.07, 1.55)
        style = "round,pad=0,rounding_size=0.12"
        ax.add_patch(FancyBboxPatch(corner, 2.14, 1.9, boxstyle=style, facecolor=color + "22", edgecolor=color, lw=1.8))
        ax.text(x, 3.1, title, ha="center", va="center", fontsize=12, fontweight="bold", color=INK)
        ax.text(x, 2.25, text, ha="center", va="center", fontsize=9, color=INK, linespacing=1.5)
        if i < len(steps) - 1:
            arrow(ax, (x + 1.09, 2.5), (x + 1.38, 2.5))
    ax.plot([11.13, 11.13, 1.25], [1.5, 0.8, 0.8], color=GRAY, lw=1.8)
    arrow(ax, (1.25, 0.8), (1.25, 1.53))
    ax.text(6.2, 0.55, "repeat with the updated policy", fontsize=10, ha="center", va="center", color=INK)
    save(fig, path)
