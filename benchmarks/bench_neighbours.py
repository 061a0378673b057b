"""How much slower is PPO beside other work? Each way to wait for the other threads, on an idle and on a busy machine.

    python benchmarks/bench_neighbours.py [--neighbours 2] [--threads 2] [--rounds 3] [--ways default passive 10000]

Neighbours are processes that compute without end. A way is `default` (nothing is set: what `rlhf` leaves on an idle
machine), `passive` (OMP_WAIT_POLICY: what it sets on a busy one), or a number (GOMP_SPINCOUNT); with a slash behind
it, `default/1`, a number of threads of its own. One update of setting a of bench_ppo.py (critic: shared) of each way in
turn, first with no neighbor and then with all of them; response tokens per wall second, medians. Share is the rate
beside neighbours over the rate alone. Have nothing else running. The last line is JSON.
"""

import argparse
import json
import multiprocessing
import os
import signal
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from ppo_bench.model import write_workload
from ppo_bench.settings import A
from ppo_bench.sides import Side, work
from ppo_bench.turns import Worker, elsewhere, started

from rlhf.parallel.waiting import CHOSEN_BY_HAND
from rlhf.report.tables import markdown_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neighbours", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", default=["default", "passive"])
    arguments = parser.parse_args()
    neighbours = [multiprocessing.Process(target=compute, daemon=True) for _ in range(arguments.neighbours)]
    for neighbour in neighbours:
        neighbour.start()
    send(neighbours, signal.SIGSTOP)
    with tempfile.TemporaryDirectory(prefix="bench_neighbours_") as folder:
        workers = [worker(way, arguments.threads, Path(folder)) for way in arguments.ways]
        rates: dict[str, list[list[float]]] = {"alone": [], "beside": []}
        for _ in range(arguments.rounds):
            rates["alone"].append([rate(worker) for worker in workers])
            send(neighbours, signal.SIGCONT)
            rates["beside"].append([rate(worker) for worker in workers])
            send(neighbours, signal.SIGSTOP)
        for one in workers:
            one.stop()
    for neighbour in neighbours:
        neighbour.kill()  # a stopped process does not hear that it is asked to end
    result = {
        way: {name: median(round_[number] for round_ in rounds) for name, rounds in rates.items()}
        for number, way in enumerate(arguments.ways)
    }
    rows = [
        [way, f"{now['alone']:.0f}", f"{now['beside']:.0f}", f"{now['beside'] / now['alone']:.2f}"]
        for way, now in result.items()
    ]
    print(markdown_table(["way", "alone", f"beside {arguments.neighbours}", "share"], rows))
    print(json.dumps(vars(arguments) | {"tokens_per_second": result}))


def compute() -> None:
    """A neighbor."""
    while True:
        pass


def send(processes: list[multiprocessing.Process], number: int) -> None:
    """Send a signal to all of them."""
    for process in processes:
        assert process.pid is not None
        os.kill(process.pid, number)


def worker(way: str, threads: int, folder: Path) -> Worker:
    """A process that makes updates and waits in this way; libgomp reads the environment when torch is loaded."""
    waiting, _, own_threads = way.partition("/")
    threads = int(own_threads or threads)
    side = Side(
        name=way.replace("/", "_"), trainer="rlhf", setting=A, workload=folder / "workload", dtype="float32",
        critic="shared", threads=threads,
    )  # fmt: skip
    if not side.workload.exists():
        elsewhere(write_workload, side.setting, side.workload, side.dtype)
    named = {"default": {}, "passive": {"OMP_WAIT_POLICY": "PASSIVE"}}
    set_to: dict[str, str] = named.get(waiting, {"GOMP_SPINCOUNT": waiting})
    before = dict(os.environ)
    for name in (*CHOSEN_BY_HAND, "OMP_NUM_THREADS"):
        os.environ.pop(name, None)
    os.environ.update(set_to | {"TOKENIZERS_PARALLELISM": "false"})
    try:
        return started(way, work, side)
    finally:
        os.environ.clear()
        os.environ.update(before)


def rate(worker: Worker) -> float:
    """Response tokens per wall second of one more update."""
    update: Any = worker.again()
    return sum(update["lengths"]) / sum(update["wall"].values())


if __name__ == "__main__":
    main()
