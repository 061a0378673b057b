"""One process of a long run: `python tests/reliability/life.py FOLDER NAME UPDATES UPDATE_SECONDS [FAULT]`.

Started by tests/reliability/long_run.py. FAULT is a `Fault` as JSON. Readings go to standard output, line by line.
"""

import json
import sys
from pathlib import Path

from endurance.faults import Fault, Strike
from endurance.gauge import Gauge
from endurance.task import config

from rlhf.cli import quiet_libraries
from rlhf.stages.ppo import run_ppo


def main() -> None:
    folder, name, updates, update_seconds, *fault = sys.argv[1:]
    strikes = [Strike(Fault(**json.loads(text)), float(update_seconds)) for text in fault]
    quiet_libraries()
    run_ppo(config(Path(folder), name, int(updates)), callbacks=[*strikes, Gauge()])


if __name__ == "__main__":
    main()
