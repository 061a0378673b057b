"""What a toy leaves behind: `metrics.jsonl`, `summary.json`, and a short table on the screen."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any


def write(output_dir: Path, config: Any, metrics: Iterable[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
    """Write one JSON line per record, and the summary with the config that led to it."""
    output_dir.mkdir(parents=True, exist_ok=True)
    with (output_dir / "metrics.jsonl").open("w") as lines:
        lines.writelines(json.dumps(record) + "\n" for record in metrics)
    settings = {name: value for name, value in asdict(config).items() if name != "output_dir"}
    (output_dir / "summary.json").write_text(json.dumps({**summary, "config": settings}, indent=2) + "\n")


def table(header: Sequence[str], rows: Sequence[Sequence[str | float]]) -> str:
    """Aligned columns: the first to the left, numbers (three decimals) to the right."""
    cells = [list(header)] + [[c if isinstance(c, str) else f"{c:.3f}" for c in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])
