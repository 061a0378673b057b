"""How long a user waits: for `rlhf --help`, and for the first update of `rlhf ppo` on a finished pipeline run.

    python benchmarks/bench_startup.py [--run runs/from_scratch] [--repeats 5]

Wall seconds from the command; the PPO stage is given the run's own config and fine-tuned model, and is ended after its
first update. The last line is JSON with the medians.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

RLHF = [sys.executable, "-m", "rlhf"]
POLL_SECONDS = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/from_scratch"))
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    of_help = [seconds_of_help() for _ in range(arguments.repeats)]
    print(f"rlhf --help: {median(of_help):.2f} s (median of {arguments.repeats}, at most {max(of_help):.2f})")
    of_update = [seconds_to_first_update(arguments.run) for _ in range(arguments.repeats)]
    print(f"rlhf ppo, first update: {median(of_update):.1f} s (at most {max(of_update):.1f})")
    print(json.dumps({"help_seconds": median(of_help), "first_update_seconds": median(of_update)}))


def seconds_of_help() -> float:
    """From the command to its end."""
    started = time.perf_counter()
    subprocess.run([*RLHF, "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def seconds_to_first_update(run: Path) -> float:
    """From the command to the first row of metrics.jsonl."""
    with tempfile.TemporaryDirectory(prefix="bench_startup_") as folder:
        metrics = Path(folder) / "metrics.jsonl"
        command = [*RLHF, "ppo", "--config", str(run / "ppo" / "config.yaml"), "--output_dir", folder]
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while not (metrics.exists() and metrics.read_text().endswith("\n")):
                if process.poll() is not None:
                    raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
                time.sleep(POLL_SECONDS)
            seconds = time.perf_counter() - started
            process.kill()
        return seconds


if __name__ == "__main__":
    main()
