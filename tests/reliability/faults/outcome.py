"""What a run leaves behind, so that two of them can be compared bit for bit."""

import hashlib
import json
from pathlib import Path
from typing import Any

ITS_OWN = {"config.yaml", "versions.json", "done.json", "report.html", "wandb_id.txt"}
"""Files with paths, times and random names in them: they have to be there."""
MIRRORS = {"wandb", "tensorboard"}


def outcome(folder: Path) -> dict[str, Any]:
    """Every file of a run by its path, with what counts of it."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    named = {str(path.relative_to(folder)): path for path in files}
    return {
        name: "there" if path.name in ITS_OWN or path.suffix == ".png" else content(path, folder)
        for name, path in named.items()
        if not MIRRORS & set(Path(name).parts)
    }


def content(file: Path, run: Path) -> Any:
    """The SHA-256 of tensors, rows without times, and text in which the run's own folder has no name."""
    if file.suffix == ".safetensors":
        return hashlib.sha256(file.read_bytes()).hexdigest()
    text = file.read_text(encoding="utf-8").replace(str(run.parent), "")
    if file.suffix == ".jsonl":
        return [without_times(json.loads(line)) for line in text.splitlines()]
    if file.name == "adapter_config.json":  # PEFT writes sets, in any order
        return {key: sorted(x) if isinstance(x, list) else x for key, x in json.loads(text).items()}
    return text


def without_times(row: dict[str, Any]) -> str:
    """A row as text, in which NaN equals NaN."""
    return json.dumps({name: value for name, value in row.items() if not name.startswith("time/")})


def difference(found: dict[str, Any], expected: dict[str, Any]) -> str | None:
    """The first file in which two outcomes differ, in words; None if they are equal."""
    for name in sorted(found.keys() | expected.keys()):
        if name not in found:
            return f"{name} is missing"
        if name not in expected:
            return f"{name} is left over"
        if found[name] != expected[name]:
            return f"{name} differs from that of the undisturbed run"
    return None
