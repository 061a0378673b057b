"""Writes react_repair.jsonl: broken components of data/react, what parser or renderer say, and the sound ones.

Run it from the repository root, after `rlhf setup-render`:

    PYTHONPATH=data/react/build python data/environments/build/react_repair.py
"""

import json
import random
from pathlib import Path
from typing import Any

from react_data import flaws

from rlhf.environments.react_repair import AGAIN, ReactRepair

TRACES, LONGEST = 600, 330
SOURCE, FILE = Path("data/react/train.jsonl"), Path(__file__).parents[1] / "react_repair.jsonl"
FLAWS = (
    flaws.missing_closing_tag, flaws.mismatched_bracket, flaws.truncated, flaws.undefined_variable,
    flaws.missing_return,
)  # fmt: skip


def trace(row: dict[str, str], environment: ReactRepair, rng: random.Random) -> dict[str, Any] | None:
    """A conversation that ends with the mended component; None where the flaw leaves nothing to mend."""
    broken = rng.choice(FLAWS)(rng, row["completion"])
    fault = environment.fault(broken) if broken else None
    if fault is None or environment.fault(row["completion"]) is not None:
        return None
    said = [row["prompt"], broken, AGAIN.format(fault), row["completion"]]
    roles = ("user", "assistant", "user", "assistant")
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]}


def main() -> None:
    """Draw rows of the training data until there are enough traces."""
    rows = [json.loads(line) for line in SOURCE.read_text(encoding="utf-8").splitlines()]
    short = [row for row in rows if len(row["completion"]) <= LONGEST]
    rng, environment = random.Random(0), ReactRepair(reward="react_render")
    lines: list[str] = []
    while len(lines) < TRACES:
        found = trace(rng.choice(short), environment, rng)
        if found:
            lines.append(json.dumps(found, ensure_ascii=False) + "\n")
    FILE.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
