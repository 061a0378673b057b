"""Exit with an error unless a pipeline's summary shows that PPO improved on SFT: `check_gain.py summary.json`."""

import json
import sys
from pathlib import Path

MINIMUM_GAIN = {"reward": 0.20, "react_heuristic": 0.05, "parse_rate": 0.0}


def main() -> None:
    summary = json.loads(Path(sys.argv[1]).read_text())
    failed = False
    for name, minimum in MINIMUM_GAIN.items():
        gain = summary["ppo"][name] - summary["sft"][name]
        verdict = "ok" if gain >= minimum else "TOO LITTLE"
        failed |= gain < minimum
        print(
            f"{name:<16} {summary['sft'][name]:.3f} -> {summary['ppo'][name]:.3f}  {gain:+.3f} (>= {minimum}) {verdict}"
        )
    sys.exit(failed)


if __name__ == "__main__":
    main()
