"""A long run that is struck by a fault in every 50 updates, against the same run left alone.

    python tests/reliability/long_run.py [--updates 2000] [--every 50] [--seed 0]

Trains a very small model by PPO twice, on one thread: in a single process, and in as many as the faults make of it,
each restarted by the same command. Prints what the faults cost and whether memory, handles, threads, step time or the
run folder grow, and draws both runs. Exit status 1 if the two ended differently, in any bit of the policy or any number
of the metrics, if more was lost than the checkpoints allow, or if anything grows. Linux; some ten minutes.
"""

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median

from endurance.faults import KINDS, plan
from endurance.figure import draw
from endurance.growth import Growth, growth
from endurance.lives import Life, endure, live, outcome, repeated
from endurance.task import prepare

from rlhf.cli import quiet_libraries
from rlhf.report.tables import markdown_table

ALONE, STRUCK = "left_alone", "struck"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--every", type=int, default=50, help="updates per fault")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/long_run"), help="must not exist")
    parser.add_argument("--figure", type=Path, default=Path("docs/figures/long_run.png"))
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    folder, updates = arguments.output_dir, arguments.updates
    if folder.exists():
        parser.error(f"{folder} is there already; choose another output_dir or remove it")
    folder.mkdir(parents=True)
    quiet_libraries()
    prepare(folder)
    alone = live(folder, ALONE, updates)
    update_seconds = median(reading.seconds for reading in alone.readings)
    lives = endure(folder, STRUCK, updates, plan(updates, arguments.every, arguments.seed), update_seconds)

    equal = outcome(folder / ALONE) == outcome(folder / STRUCK)
    struck = [reading for life in lives for reading in life.readings]
    grown = {name: growth(readings, updates) for name, readings in ((ALONE, alone.readings), (STRUCK, struck))}
    print(cost_table(lives), growth_table(grown), sep="\n\n", end="\n\n")
    draw(arguments.figure, alone, lives)
    (folder / "lives.json").write_text(json.dumps([asdict(life) for life in (alone, *lives)]))
    verdict = {
        "num_updates": updates,
        "faults": len(lives) - 1,
        "equal": equal,
        "lost_too_much": sum(again > allowed for _, again, allowed in repeated(lives)),
        "grows": [f"{name}: {item.quantity.name}" for name, items in grown.items() for item in items if item.is_growth],
    }
    print(json.dumps(verdict))
    return int(not equal or bool(verdict["lost_too_much"]) or bool(verdict["grows"]))


def cost_table(lives: Sequence[Life]) -> str:
    """For each kind of fault: how often it came, and how many finished updates were made again."""
    again: dict[str, list[int]] = defaultdict(list)
    allowed: dict[str, int] = {}
    for kind, n_updates, limit in repeated(lives):
        again[kind].append(n_updates)
        allowed[kind] = limit
    rows = [
        [kind, *map(str, (len(updates), round(mean(updates), 1), max(updates), allowed[kind]))]
        for kind in KINDS
        if (updates := again[kind])
    ]
    return markdown_table(["fault", "times", "updates made again, mean", "most", "allowed"], rows)


def growth_table(grown: dict[str, list[Growth]]) -> str:
    """Medians of the fourth and the last tenth of each run."""
    rows = [
        [first.quantity.name, *(f"{x:.4g}" for item in (first, second) for x in (item.early, item.late))]
        for first, second in zip(grown[ALONE], grown[STRUCK], strict=True)
    ]
    columns = [f"{name}, {when}" for name in ("left alone", "struck") for when in ("fourth tenth", "last tenth")]
    return markdown_table(["median", *columns], rows)


if __name__ == "__main__":
    sys.exit(main())
