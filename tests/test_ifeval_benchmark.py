"""The IFEval command: every prompt is answered greedily and each response is judged by its own row's instructions."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import ifeval
import pytest
from tiny_data import write_jsonl

NO_COMMA, LONG = "punctuation:no_comma", "length_constraints:number_words"
ROWS = [
    {"key": 1, "prompt": "Say hi.", "instruction_id_list": [NO_COMMA], "kwargs": [{"num_words": None}]},
    {
        "key": 2,
        "prompt": "Say a lot.",
        "instruction_id_list": [NO_COMMA, LONG],
        "kwargs": [{}, {"relation": "at least", "num_words": 500}],
    },
]


def test_accuracies_of_a_model(tiny_models, tmp_path, monkeypatch, capsys):
    data = write_jsonl(tmp_path / "prompts.jsonl", ROWS)
    model, output = str(tiny_models["llama"]), tmp_path / "ifeval"
    arguments = [model, "--data", data, "--dtype", "float32", "--max_new_tokens", "8", "--output", str(output)]
    monkeypatch.setattr("sys.argv", ["ifeval.py", *arguments])
    ifeval.main()
    [file] = output.glob("*/responses.jsonl")
    responses = [json.loads(line)["response"] for line in file.read_text().splitlines()]
    no_comma = [float("," not in response) for response in responses]  # eight tokens are never 500 words
    table = shown(capsys)
    assert table["prompts"] == f"{100 * no_comma[0] / 2:.1f}"
    assert table["instructions"] == f"{100 * sum(no_comma) / 3:.1f}"


class Served(BaseHTTPRequestHandler):
    """Greets, within the tokens that were asked for; what it was asked is in the server."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, asked))
        text, why = ("Hi", "stop") if asked["messages"][0]["content"] == "Say hi." else ("A lot, and", "length")
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": why}
        body = json.dumps({"choices": [choice], "usage": {"completion_tokens": len(text.split())}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


def test_accuracies_of_a_server(tmp_path, monkeypatch, capsys):
    data, output = write_jsonl(tmp_path / "prompts.jsonl", ROWS), tmp_path / "ifeval"
    with ThreadingHTTPServer(("127.0.0.1", 0), Served) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(
            "sys.argv", ["ifeval.py", "org/served", "--data", data, "--url", url, "--output", str(output)]
        )
        ifeval.main()
        server.shutdown()
    table = shown(capsys)
    assert table["prompts"] == "50.0"  # the first keeps to its one instruction, the second to none of its two
    assert table["instructions"] == "33.3"
    assert (float(table["length"]), float(table["eos_rate"])) == (2.0, 0.5)
    assert {path for path, _ in server.asked} == {"/v1/chat/completions"}
    assert all((a["model"], a["temperature"], a["max_tokens"]) == ("org/served", 0, 512) for _, a in server.asked)
    kept = [json.loads(line) for line in (output / "org-served.jsonl").read_text().splitlines()]
    assert kept == [{"prompt": "Say hi.", "response": "Hi"}, {"prompt": "Say a lot.", "response": "A lot, and"}]


def test_a_server_that_refuses_is_an_error(tmp_path, monkeypatch):
    data = write_jsonl(tmp_path / "prompts.jsonl", ROWS)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setattr(
            "sys.argv", ["ifeval.py", "x", "--data", data, "--url", f"http://127.0.0.1:{server.server_port}"]
        )
        with pytest.raises(ifeval.httpx.HTTPStatusError, match="501"):
            ifeval.main()
        server.shutdown()


def shown(capsys) -> dict[str, str]:
    """The strict column, or the number, by the name of its line."""
    line = r"^│ ([a-z_ ]+?)(?: \(\d\))? +│ +(\d+\.\d+) │"
    return dict(re.findall(line, capsys.readouterr().out, re.MULTILINE))
