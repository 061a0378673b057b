"""Eight prompts with completions, as text and as a file."""

import json
from pathlib import Path

TEXTS = [
    f"Show a button saying {word}.\nexport default function {word}() {{\n  return <button>{word}</button>;\n}}"
    for word in ("Save", "Send", "Open", "Close", "Start", "Stop", "More", "Less")
]
PAIRS = [dict(zip(("prompt", "completion"), text.split("\n", 1), strict=True)) for text in TEXTS]


def write_jsonl(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def write_pairs(folder: Path) -> str:
    """The eight pairs as folder/pairs.jsonl."""
    return write_jsonl(folder / "pairs.jsonl", PAIRS)
