"""Uploads: the real client against a small server that keeps what it is sent."""

import base64
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants
from tiny_data import write_pairs
from tiny_runs import pipeline_config

from rlhf.config import HubConfig
from rlhf.errors import UserError
from rlhf.runs.hub import look_for_hub

TOKEN = "hf_" + "planted" * 5
CLI = "from rlhf.cli import main; main()"
PUSH = """
import sys
from pathlib import Path
from rlhf.config import HubConfig
from rlhf.runs.hub import push
print(push(Path(sys.argv[1]), HubConfig(model_id="me/policy")))
"""


class Hub(ThreadingHTTPServer):
    """As much of the hub as an upload needs; everything is small enough to be sent in the commit itself."""

    def __init__(self, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.status, self.files, self.repository, self.tokens = status, {}, {}, set()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        hub, body = self.server, self.rfile.read(int(self.headers["Content-Length"]))
        hub.tokens.add(self.headers["Authorization"])
        if self.headers["Authorization"] is None:
            self.send_error(401)
        elif self.path == "/api/repos/create":
            hub.repository = json.loads(body)
            self.say({"url": f"{hub.url}/me/policy"})
        elif self.path == "/api/validate-yaml":
            self.say({"errors": [], "warnings": []})
        elif self.path == "/api/models/me/policy/preupload/main":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self.say({"files": files})
        elif self.path == "/api/models/me/policy/commit/main":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.say({"commitUrl": f"{hub.url}/me/policy/commit/1", "commitOid": "1", "success": True})
        else:
            self.send_error(404)

    def say(self, answer: dict) -> None:
        content = json.dumps(answer).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "policy"
    (folder / "critic").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlibrary_name: peft\n---\n# A policy\n")
    (folder / "critic" / "adapter_model.safetensors").write_bytes(bytes(range(256)))
    return folder


def push(folder, endpoint: str, **environment: str) -> subprocess.CompletedProcess:
    return start(PUSH, str(folder), home=folder.parent / "home", endpoint=endpoint, **environment)


def start(program: str, *arguments: str, home: Path, endpoint: str, **environment: str) -> subprocess.CompletedProcess:
    """A process of its own: the client reads its environment when it is imported."""
    known = {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0"}
    env = {k: v for k, v in os.environ.items() if k != "HF_TOKEN"} | known | environment
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def serve(status: int = 200) -> Hub:
    hub = Hub(status)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    return hub


@pytest.mark.parametrize(("proxies", "expected"), [({}, True), ({"no": "localhost"}, True), ({"https": "p"}, False)])
def test_a_hub_whose_name_leads_nowhere_is_not_asked(monkeypatch, proxies, expected):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr("urllib.request.getproxies", lambda: proxies)
    look_for_hub.__wrapped__()
    assert expected == constants.HF_HUB_OFFLINE
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://localhost:1")
    look_for_hub.__wrapped__()
    assert not constants.HF_HUB_OFFLINE


def test_every_file_arrives_in_a_private_repository(folder):
    hub = serve()
    done = push(folder, hub.url, HF_TOKEN=TOKEN)
    hub.shutdown()
    assert done.stdout == f"uploaded to {hub.url}/me/policy\nTrue\n", done.stderr
    assert hub.files == {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    assert hub.repository["name"] == "policy"
    assert hub.repository["visibility"] == "private"
    assert hub.tokens == {f"Bearer {TOKEN}"}


@pytest.mark.slow
def test_a_pipeline_uploads_a_card_with_its_held_out_results(tmp_path):
    hub = serve()
    config = pipeline_config(tmp_path / "run", write_pairs(tmp_path), "gpt2")
    config["ppo"] |= {"num_updates": 1, "push_to_hub": {"model_id": "me/policy"}}
    config["sft"]["num_train_epochs"] = 1
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(config))
    done = start(CLI, "pipeline", "--config", str(file), home=tmp_path / "home", endpoint=hub.url, HF_TOKEN=TOKEN)
    hub.shutdown()
    assert done.stdout.count("uploaded to ") == 1, done.stderr
    card = hub.files["README.md"].decode()
    assert re.search(r"^\| reward \| .* \| .* \| [+-]", card, re.MULTILINE)  # before, after, gain
    assert card == (tmp_path / "run/ppo/policy/README.md").read_text(encoding="utf-8")
    assert "adapter_model.safetensors" in hub.files


@pytest.mark.parametrize("trouble", ["nobody listens", "no token", "refused"])
def test_what_goes_wrong_is_one_line(folder, trouble):
    hub = serve(status=403 if trouble == "refused" else 200)
    if trouble == "nobody listens":
        hub.shutdown()
        hub.server_close()
    done = push(folder, hub.url, **({} if trouble == "no token" else {"HF_TOKEN": TOKEN}))
    [line] = done.stderr.splitlines()
    assert re.fullmatch(r"not uploaded to me/policy \(.+\); it is in .*/policy, and the same command tries again", line)
    assert done.stdout == "False\n"
    assert done.returncode == 0
    assert TOKEN not in line
    assert not hub.files


@pytest.mark.parametrize("name", ["", "a/b/c", "me/my policy", "/x"])
def test_a_name_that_cannot_be_one(name):
    with pytest.raises(UserError, match=r"push_to_hub\.model_id is '.*'; it must be NAME or OWNER/NAME"):
        HubConfig(model_id=name)


PUSH_CLASSIC = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from tiny_classic import make_trainer
print(make_trainer(Path(sys.argv[1])).push_to_hub("me/policy", private=True, commit_message="first"))
"""


def test_the_classic_trainer_pushes_what_it_saves(tiny_models, tmp_path):
    hub = serve()
    done = start(PUSH_CLASSIC, str(tiny_models["gpt2"]), home=tmp_path / "home", endpoint=hub.url, HF_TOKEN=TOKEN)
    hub.shutdown()
    assert done.stdout.strip() == f"{hub.url}/me/policy/commit/1", done.stderr
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= hub.files.keys()
    assert hub.repository["visibility"] == "private"
    assert b"PPO" in hub.files["README.md"]
