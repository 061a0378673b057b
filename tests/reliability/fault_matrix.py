"""Faults injected into real runs, one after the other.

    python tests/reliability/fault_matrix.py [--only TEXT] [--jobs 2]

Very small models are trained by the real commands, in processes of their own, on the CPU. Each run is disturbed,
looked at, continued by the same command, and compared bit for bit with a run that was left alone. Prints a row for
each fault and, last, a line of JSON; exit status 1 if one was not survived. Linux only; full and read-only disks are
real ones and need the right to mount.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from faults import damage, disks, kills, numbers, ranks, resuming, reward_faults, signals, trackers
from faults.fault import Fault, Result, inject
from faults.lab import Lab
from faults.table import line, summary, write_into

GROUPS = (kills, signals, disks, damage, numbers, reward_faults, trackers, ranks, resuming)


def all_faults() -> list[Fault]:
    """Every fault there is, in the order of the table."""
    return [fault for group in GROUPS for fault in group.faults()]


def run(faults: list[Fault], jobs: int) -> Iterator[Result]:
    """Inject faults, `jobs` at a time; results in the order of the faults."""
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        lab = Lab(root)
        with ThreadPoolExecutor(jobs) as workers:
            yield from workers.map(lambda each: inject(each[1], lab, root / f"{each[0]:03d}"), enumerate(faults))
    finally:
        shutil.rmtree(root, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", default="", help="faults with this in their name or place")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time; each needs one core")
    parser.add_argument("--markdown", type=Path, help="a file in which the table is replaced: docs/dev/reliability.md")
    options = parser.parse_args()
    faults = [fault for fault in all_faults() if options.only in f"{fault.name}, {fault.where}"]
    results = []
    for result in run(faults, options.jobs):
        results.append(result)
        print(line(result), flush=True)
    if options.markdown:
        write_into(options.markdown, results)
    print(summary(results))
    sys.exit(not all(result.ok for result in results))


if __name__ == "__main__":
    main()
