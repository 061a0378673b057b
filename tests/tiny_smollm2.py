"""A random model of SmolLM2's architecture where `rlhf fetch smollm2` puts the real one."""

import json
from pathlib import Path

from documents import text_of

from rlhf.config import ScratchModel
from rlhf.models.load import build_from_scratch
from rlhf.stages.fetch import PROVENANCE_FILE, SOURCES


def write_smollm2(folder: Path) -> None:
    """Into folder/models/, with the file by which `rlhf fetch` knows its own work."""
    texts = [json.loads(line)["completion"] for line in text_of("data/react/train.jsonl").splitlines()[:40]]
    size = {"hidden_size": 32, "layers": 1, "heads": 2, "context_length": 1200, "vocab_size": 400}
    home = folder / "models" / "SmolLM2-135M-Instruct"
    for part in build_from_scratch(ScratchModel(architecture="llama", **size), texts):
        part.save_pretrained(home)
    provenance = {"model": SOURCES["smollm2"].model, "weights": "random weights", "source": "a test"}
    (home / PROVENANCE_FILE).write_text(json.dumps(provenance), encoding="utf-8")
