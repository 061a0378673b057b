"""`rlhf toy tiny-lm`: train, write, draw, print."""

from collections.abc import Iterator
from typing import Any

from rlhf.toy import report
from rlhf.toy.config import TinyLMConfig
from rlhf.toy.plots import tiny_lm as plots
from rlhf.toy.tiny_lm import WITH_PENALTY, WITHOUT_PENALTY, Trained, run_seed


def run(config: TinyLMConfig) -> dict[str, Any]:
    """Train with and without the KL penalty, test on fresh prompts, draw, write and print; returns the summary."""
    seeds = [run_seed(config, seed) for seed in range(config.seed, config.seed + config.seeds)]
    tests = {
        name: {key: sum(s.tests[name][key] for s in seeds) / len(seeds) for key in of}
        for name, of in seeds[0].tests.items()
    }
    summary: dict[str, Any] = {
        "solve_rate": tests[WITH_PENALTY]["solved"],
        "solve_rate_per_seed": [s.tests[WITH_PENALTY]["solved"] for s in seeds],
        "solve_rate_reference": tests["reference"]["solved"],
        "solve_rate_without_penalty": tests[WITHOUT_PENALTY]["solved"],
        "seconds_to_solve": max(s.seconds for s in seeds),  # reference and PPO with the KL penalty, the slowest seed
        "tests": tests,
        "examples": seeds[0].examples,
    }
    runs = {name: [s.runs[name] for s in seeds] for name in (WITH_PENALTY, WITHOUT_PENALTY)}
    report.write(config.output_dir, config, _records(config, runs), summary)
    plots.draw(config.output_dir, config, runs)
    columns = ("solved", "score", "tokens", "kl")
    rows = [[name, *(f"{of[key]:.3f}" for key in columns), seeds[0].examples[name]] for name, of in tests.items()]
    print(report.table(["model", *columns, "example"], rows))
    print(f"\nreference and PPO with the KL penalty took {summary['seconds_to_solve']:.0f} s per seed")
    return summary


def _records(config: TinyLMConfig, runs: dict[str, list[Trained]]) -> Iterator[dict[str, Any]]:
    for name, of in runs.items():
        for seed, trained in enumerate(of, start=config.seed):
            for record in trained.records:
                yield {"run": name, "seed": seed, **record}
