"""What a slow reward on one of four processes costs the others: the share of an update in which they wait for it.

    python benchmarks/bench_stragglers.py [--seconds 0 0.5 2]

Four processes on the CPU (gloo) and a very small model; the reward of the last one sleeps. Printed are medians over the
updates after the first, as the first process sees them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from ppo_bench.model import PROMPTS_FILE, write_workload
from ppo_bench.settings import TINY

from rlhf.report.tables import markdown_table

PROCESSES, UPDATES, ROWS = 4, 6, 16
SLOW = "SECONDS_ON_THE_LAST"
PHASES = ("rollout", "reference", "evaluation", "reward", "exchange", "update")


def slow_on_the_last(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
    """The reward: the length of a response, after a while where this is the last process."""
    if int(os.environ["RANK"]) == PROCESSES - 1:
        time.sleep(float(os.environ[SLOW]))
    return [float(len(text)) for text in completions]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.0, 0.5, 2.0])
    table = []
    for seconds in parser.parse_args().seconds:
        with tempfile.TemporaryDirectory() as folder:
            write_workload(replace(TINY, batch=ROWS), Path(folder))
            updates = run(Path(folder), seconds)
        whole, waited = median(map(sum, updates)), median(phases[PHASES.index("exchange")] for phases in updates)
        table.append([f"{seconds:g}", f"{whole:.2f}", f"{waited:.2f}", f"{100 * waited / whole:.0f}%"])
    print(markdown_table(["s of the slow reward", "s per update", "s waiting and exchanging", "share"], table))


def run(folder: Path, seconds: float) -> list[list[float]]:
    """Seconds of each phase of each update but the first, on the first process."""
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), *sys.path])
    env = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, SLOW: str(seconds)}
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--main_process_port", "0"]
    launcher += ["--num_processes", str(PROCESSES), "--num_machines", "1", "--mixed_precision", "no"]
    launcher += ["--dynamo_backend", "no", "-m", "rlhf", "ppo"]
    options = {
        "model.name_or_path": folder, "data.train": folder / PROMPTS_FILE, "output_dir": folder / "run",
        "rewards": "[{path: bench_stragglers.slow_on_the_last}]", "inspect.prompts": 0, "num_updates": UPDATES,
        "batch_size": ROWS, "mini_batch_size": ROWS, "micro_batch_size": ROWS // PROCESSES, "critic": "shared",
        "sampling.max_new_tokens": TINY.response_tokens, "tracking": "{tensorboard: false, wandb: disabled}",
    }  # fmt: skip
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = subprocess.run([*launcher, *given], env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    rows = map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
    return [[row[f"time/{phase}"] for phase in PHASES] for row in rows][1:]


if __name__ == "__main__":
    main()
