"""Critics, advantage estimators and KL coefficients side by side: a Markdown table over seeds, and a plot with bands.

`python benchmarks/compare_algorithms.py [--seeds 0 1 2]` takes model, data and settings from configs/from_scratch.yaml
on a smaller budget (comparison.BUDGET) and changes one thing at a time (STUDIES). Finished parts are not repeated.
"""

from pathlib import Path
from typing import Any

from comparison import (
    HELD_OUT,
    Run,
    cpu_cell,
    draw_band,
    draw_held_out,
    from_scratch,
    held_out_cells,
    read_arguments,
    sft_means,
    tidy,
    train_ours,
)

from rlhf.config import ValueWarmup
from rlhf.report.plots import GRAY, PALETTE
from rlhf.report.tables import markdown_table

GROUPS_OF_4 = {"num_generations": 4}
NO_CRITIC = GROUPS_OF_4 | {"value_warmup": ValueWarmup()}
ADAPTIVE = {"adaptive_kl_target": 4.0, "adaptive_kl_horizon": 64}  # at most a fifth up or down after each update
STUDIES: dict[str, dict[str, dict[str, Any]]] = {
    "critic": {
        "adapter": {},
        "branch": {"critic": "branch"},
        "detached": {"critic": "detached"},
        "shared": {"critic": "shared"},
    },
    "critic, equal processor time": {
        "adapter": {},
        "branch": {"critic": "branch", "num_updates": 33},
        "detached": {"critic": "detached", "num_updates": 39},
        "shared": {"critic": "shared", "num_updates": 40},
    },
    "advantage, 4 responses per prompt": {
        "gae": GROUPS_OF_4,
        "rloo": NO_CRITIC | {"advantage": "rloo"},
        "group_relative": NO_CRITIC | {"advantage": "group_relative"},
        "reward_per_token": NO_CRITIC | {"advantage": "reward_per_token"},
        "rloo, half the learning rate": NO_CRITIC | {"advantage": "rloo", "learning_rate": 1e-3},
    },
    "KL coefficient": {
        "fixed 0.05": {},
        "fixed 0.5": {"kl_coef": 0.5},
        "adaptive from 0.5": {"kl_coef": 0.5} | ADAPTIVE,
    },
}
Results = dict[str, dict[str, list[Run]]]


def main() -> None:
    figure, folders = read_arguments(__doc__, Path("docs/figures/algorithms.png"))
    config = from_scratch()
    sft = [sft_means(config, folder, seed) for seed, folder in folders.items()]
    results: Results = {}
    for study, variants in STUDIES.items():
        results[study] = {
            name: [train_ours(config, folder, seed, changes) for seed, folder in folders.items()]
            for name, changes in variants.items()
        }
    print(table(sft, results))
    if len(folders) > 1:
        plot(sft, results, figure)


def table(sft: list[dict[str, float]], results: Results) -> str:
    """Held-out mean ± standard deviation over the seeds, and the processor time of a training run."""
    rows = [["SFT", "", *held_out_cells(sft), ""]]
    for study, variants in results.items():
        for name, runs in variants.items():
            rows.append([study, name, *held_out_cells([run.held_out for run in runs]), cpu_cell(runs)])
    return markdown_table(["changed", "to", *HELD_OUT, "CPU s"], rows)


def plot(sft: list[dict[str, float]], results: Results, file: Path) -> None:
    """For each study: score and KL of the rollouts over training, and where the policies end up on held-out prompts."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shape = {"figsize": (4 * len(results), 10.5), "layout": "constrained", "sharex": "row", "sharey": "row"}
    figure, grid = plt.subplots(3, len(results), dpi=120, **shape)
    for column, (study, variants) in enumerate(results.items()):
        score, kl, held_out = grid[:, column]
        draw_held_out(held_out, sft, GRAY, "SFT")
        held_out.annotate("SFT", (0, sft[0]["reward"]), (10, -3), textcoords="offset points", color=GRAY)
        for color, (name, runs) in zip(PALETTE, variants.items(), strict=False):
            draw_band(score, runs, "objective/score", color, name)
            draw_band(kl, runs, "objective/kl", color, name)
            draw_held_out(held_out, [run.held_out for run in runs], color, name)
        tidy(score, title=study, xlabel="responses")
        tidy(kl, xlabel="responses")
        tidy(held_out, xlabel="held-out KL, nats per response")
        score.legend(frameon=False, fontsize=8, loc="upper left")
    labels = ("score of the rollouts", "KL of the rollouts, nats per response", "held-out reward")
    for axes, label in zip(grid[:, 0], labels, strict=True):
        axes.set_ylabel(label)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
    plt.close(figure)


if __name__ == "__main__":
    main()
