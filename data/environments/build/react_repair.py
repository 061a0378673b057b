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

TRACES, LONGEST, OWN = 600, 330, 0.3
SOURCE, FILE = Path("data/react/train.jsonl"), Path(__file__).parents[1] / "react_repair.jsonl"
Row = dict[str, str]
FLAWS = (
    flaws.missing_closing_tag, flaws.mismatched_bracket, flaws.truncated, flaws.undefined_variable,
    flaws.missing_return,
)  # fmt: skip


def trace(row: Row, relatives: list[Row], environment: ReactRepair, rng: random.Random) -> dict[str, Any] | None:
    """A conversation that ends with a sound component; None where the flaw leaves nothing to mend.

    Mostly it is another component of the family that is broken. A model that is only shown its answer with one flaw
    learns to copy, and copies the mistakes that it makes itself.
    """
    shown = row if rng.random() < OWN else rng.choice(relatives)
    broken = rng.choice(FLAWS)(rng, shown["completion"])
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
    families: dict[str, list[Row]] = {}
    for row in short:
        families.setdefault(row["family"], []).append(row)
    rng, environment = random.Random(0), ReactRepair(reward="react_render")
    lines: list[str] = []
    while len(lines) < TRACES:
        row = rng.choice(short)
        found = trace(row, families[row["family"]], environment, rng)
        if found:
            lines.append(json.dumps(found, ensure_ascii=False) + "\n")
    FILE.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
