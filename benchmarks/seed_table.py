"""Held-out means before and after PPO of several runs, as Markdown: `seed_table.py runs/seed-0 runs/seed-1`."""

import json
import sys
from pathlib import Path
from statistics import mean, stdev


def main() -> None:
    summaries = {path: json.loads((Path(path) / "summary.json").read_text()) for path in sys.argv[1:]}
    print("| held-out mean | " + " | ".join(Path(path).name for path in summaries) + " | change, mean ± sd |")
    print("| --- |" + " ---: |" * (len(summaries) + 1))
    for name in next(iter(summaries.values()))["sft"]:
        pairs = [(summary["sft"][name], summary["ppo"][name]) for summary in summaries.values()]
        changes = [after - before for before, after in pairs]
        spread = f" ± {stdev(changes):.3f}" if len(changes) > 1 else ""
        cells = [f"{before:.3f} → {after:.3f}" for before, after in pairs]
        print(f"| {name} | {' | '.join(cells)} | {mean(changes):+.3f}{spread} |")


if __name__ == "__main__":
    main()
