"""Exit with an error unless a pipeline's summary shows that PPO improved on what it started from: `check_gain.py
summary.json`."""

import json
import sys
from pathlib import Path

MINIMUM_GAINS = (  # the first whose quantities were all measured
    # configs/quickstart.yaml: .047 to .112 were seen; means over 128 responses are off by about .03
    {"reward": 0.01, "react_parses": -0.03},
    {"reward": 0.20, "react_heuristic": 0.05, "parse_rate": 0.0},  # configs/from_scratch.yaml
)


def main() -> None:
    before, after = json.loads(Path(sys.argv[1]).read_text()).values()
    minimum_gain = next(gains for gains in MINIMUM_GAINS if gains.keys() <= after.keys())
    failed = False
    for name, minimum in minimum_gain.items():
        gain = after[name] - before[name]
        verdict = "ok" if gain >= minimum else "TOO LITTLE"
        failed |= not gain >= minimum  # nor where one of the two is no number
        print(f"{name:<16} {before[name]:.3f} -> {after[name]:.3f}  {gain:+.3f} (>= {minimum}) {verdict}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
