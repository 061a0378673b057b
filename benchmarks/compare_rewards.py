"""What PPO does to held-out responses under different rewards, seeds side by side, as a Markdown table.

`python benchmarks/compare_rewards.py [--seeds 0 1 2]` takes model, data and settings from configs/from_scratch.yaml and
changes nothing but the reward. Finished parts are not repeated. Needs the render set-up (rlhf setup-render).
"""

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

from rlhf.cli import quiet_libraries, spare_a_core
from rlhf.config import EvaluateConfig, ModelConfig, PipelineConfig
from rlhf.config.command_line import parse
from rlhf.rewards import RewardSpec
from rlhf.stages.evaluate import run_evaluate
from rlhf.stages.ppo import run_ppo
from rlhf.stages.sft import run_sft

REWARDS = {
    "heuristic": [RewardSpec(path="react_heuristic")],
    "static": [RewardSpec(path="react_static")],
    "full": [RewardSpec(path="react_full")],
    "heuristic + parses": [RewardSpec(path="react_heuristic"), RewardSpec(path="react_parses")],
}
MEASURED = ["react_heuristic", "react_parses", "react_static", "react_render", "react_match"]
COLUMNS = [*MEASURED, "length", "kl"]
Means = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output_dir", type=Path, default=Path("runs/compare_rewards"))
    arguments = parser.parse_args()
    quiet_libraries()
    spare_a_core()
    config = parse(PipelineConfig, ["--config", "configs/from_scratch.yaml"])
    results: dict[str, list[Means]] = {}
    for seed in arguments.seeds:
        folder = arguments.output_dir / f"seed-{seed}"
        assert config.sft is not None
        sft = run_sft(replace(config.sft, output_dir=str(folder / "sft"), seed=seed))
        results.setdefault("SFT", []).append(evaluate(config, sft, folder / "evaluation_sft"))
        for name, rewards in REWARDS.items():
            place = folder / name.replace(" ", "_")
            base = replace(config.ppo.model, name_or_path=str(sft))
            ppo = replace(config.ppo, output_dir=str(place / "ppo"), model=base, rewards=rewards, seed=seed)
            results.setdefault(name, []).append(evaluate(config, run_ppo(ppo), place / "evaluation"))
    print("| trained on | " + " | ".join(COLUMNS) + " |\n| --- |" + " ---: |" * len(COLUMNS))
    for name, seeds in results.items():
        print(f"| {name} | " + " | ".join(cell([means[column] for means in seeds]) for column in COLUMNS) + " |")


def evaluate(config: PipelineConfig, model: Path, folder: Path) -> Means:
    """Held-out means of everything that is measured."""
    evaluation = EvaluateConfig(
        output_dir=str(folder),
        model=ModelConfig(name_or_path=str(model)),
        data=config.ppo.data,
        rewards=[RewardSpec(path=path, weight=0.0) for path in MEASURED],
        sampling=config.ppo.sampling,
        prompts=config.evaluation.prompts,
        num_generations=config.evaluation.num_generations,
        seed=config.evaluation.seed,
    )
    return run_evaluate(evaluation).means


def cell(values: list[float]) -> str:
    """Mean and spread over the seeds."""
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


if __name__ == "__main__":
    main()
