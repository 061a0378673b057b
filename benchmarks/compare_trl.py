"""Head to head with TRL's own PPOTrainer (trl.experimental.ppo): reward, KL and cost as a Markdown table and a plot.

`python benchmarks/compare_trl.py [--seeds 0 1 2]` gives both trainers the same SFT model, prompts, reward, LoRA, number
of responses, temperature, KL coefficient, epochs, minibatches (configs/from_scratch.yaml with BUDGET). TRL's learning
rates are the best of TRL_LEARNING_RATES on the first seed. Finished parts are not repeated.
"""

from pathlib import Path

from comparison import (
    BUDGET,
    HELD_OUT,
    Run,
    cell,
    cpu_cell,
    draw_band,
    draw_held_out,
    from_scratch,
    held_out_cells,
    ppo_config,
    read_arguments,
    sft_means,
    tidy,
    train_and_measure,
    train_ours,
)
from trl_ppo import LearningRates, train_with_trl

from rlhf.config import PipelineConfig
from rlhf.ppo.state import POLICY_FOLDER
from rlhf.report.plots import BLUE, GRAY, ORANGE
from rlhf.report.tables import markdown_table

TRL_LEARNING_RATES: list[LearningRates] = [(5e-4, 5e-4), (1e-3, 1e-3), (2e-3, 1e-3)]  # the last are ours


def main() -> None:
    figure, folders = read_arguments(__doc__, Path("docs/figures/trl.png"))
    config = from_scratch()
    sft = [sft_means(config, folder, seed) for seed, folder in folders.items()]
    first_seed, first = next(iter(folders.items()))
    grid = {rates: train_theirs(config, first, first_seed, rates) for rates in TRL_LEARNING_RATES}
    best = max(grid, key=lambda rates: grid[rates].held_out["objective"])
    ours = [train_ours(config, folder, seed, {}) for seed, folder in folders.items()]
    theirs = [train_theirs(config, folder, seed, best) for seed, folder in folders.items()]
    results = {"rlhf": ours, f"TRL, lr {name_of(best)}": theirs}
    alone = {f"TRL, lr {name_of(rates)}, seed {first_seed}": [run] for rates, run in grid.items() if rates != best}
    print(table(sft, results | alone))
    if len(folders) > 1:
        plot(sft, results, [run.held_out for [run] in alone.values()], figure)


def train_theirs(config: PipelineConfig, folder: Path, seed: int, learning_rates: LearningRates) -> Run:
    """One run of TRL's trainer, trained and measured."""
    place = folder / f"trl_{name_of(learning_rates)}".replace(" ", "_")
    ppo = ppo_config(config, folder, place.name, seed, {})
    policy = Path(ppo.output_dir) / POLICY_FOLDER

    def train() -> Path:
        if not policy.exists():
            train_with_trl(ppo, learning_rates, policy)
        return policy

    return train_and_measure(config, place, train)


def name_of(learning_rates: LearningRates) -> str:
    return " and ".join(f"{rate:g}" for rate in dict.fromkeys(learning_rates))


def table(sft: list[dict[str, float]], results: dict[str, list[Run]]) -> str:
    """Held-out means, and what training cost, mean ± standard deviation over the seeds."""
    rows = [["SFT", *held_out_cells(sft), "", ""]]
    for name, runs in results.items():
        speeds = [tokens(run) / run.cpu_seconds for run in runs if run.cpu_seconds is not None]
        cost = [cpu_cell(runs), cell(speeds, digits=0) if speeds else ""]
        rows.append([name, *held_out_cells([run.held_out for run in runs]), *cost])
    return markdown_table(["trained with", *HELD_OUT, "CPU s", "tokens per CPU s"], rows)


def tokens(run: Run) -> float:
    """Response tokens that a run was trained on."""
    return sum(row["response/length"] * BUDGET["batch_size"] for row in run.metrics)


def plot(sft: list[dict[str, float]], results: dict[str, list[Run]], alone: list[dict[str, float]], file: Path) -> None:
    """Score and KL of the rollouts over training, and reward against KL on held-out prompts."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (score, kl, held_out) = plt.subplots(1, 3, figsize=(13, 4.2), dpi=120, layout="constrained")
    for color, (name, runs) in zip((BLUE, ORANGE), results.items(), strict=True):
        draw_band(score, runs, "objective/score", color, name)
        draw_band(kl, runs, "objective/kl", color, name)
        draw_held_out(held_out, [run.held_out for run in runs], color, name)
    held_out.scatter([m["kl"] for m in alone], [m["reward"] for m in alone], marker="x", color=ORANGE, s=30)
    draw_held_out(held_out, sft, GRAY, "SFT")
    tidy(score, title="Score of the rollouts", xlabel="responses", ylabel="mean per response")
    tidy(kl, title="KL of the rollouts", xlabel="responses", ylabel="nats per response")
    title = "Held out (x: TRL, lower learning rates)" if alone else "Held out"
    tidy(held_out, title=title, xlabel="KL, nats per response", ylabel="reward")
    score.legend(frameon=False, fontsize=9)
    held_out.legend(frameon=False, fontsize=9)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
    plt.close(figure)


if __name__ == "__main__":
    main()
