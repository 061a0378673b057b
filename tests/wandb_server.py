"""As much of a W&B server as one run needs: it keeps the history it is sent, and says how long that is on resuming."""

import gzip
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROJECT = {"id": "UA==", "name": "rlhf", "entity": {"id": "RQ==", "name": "me"}}


class WandbServer(ThreadingHTTPServer):
    """Rows of the one run there is; `hangs` makes it accept requests and never answer them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.rows: list[dict] = []
        self.run: str | None = None
        self.hangs = False
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def query(self, name: str, variables: dict) -> dict:
        bucket = {"id": "Qg==", "name": self.run, "displayName": "run", "config": "{}", "sweepName": None}
        if name == "RunResumeStatus":
            tail = json.dumps([json.dumps(self.rows[-1])] if self.rows else [])
            lines = {"historyLineCount": len(self.rows), "eventsLineCount": 0, "logLineCount": 0}
            tails = {"historyTail": tail, "eventsTail": "[]", "summaryMetrics": "{}", "wandbConfig": '{"t": 1}'}
            found = bucket | lines | tails | {"tags": []} if self.run else None
            return {"data": {"model": PROJECT | {"bucket": found}}}
        if name == "UpsertBucket":
            self.run = variables["name"]
            bucket |= {"name": self.run, "project": PROJECT, "historyLineCount": len(self.rows)}
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
        return {"data": {}, "errors": [{"message": f"{name} is not known here"}]}


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server, body = self.server, self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        while server.hangs:
            time.sleep(0.1)
        if self.path.endswith("/file_stream"):
            history = json.loads(body).get("files", {}).get("wandb-history.jsonl")
            if history:
                server.rows[history["offset"] :] = map(json.loads, history["content"])
            self.say({"exitcode": None, "limits": {}})
        elif self.path == "/graphql":
            query = json.loads(body)
            name = re.search(r"(?:query|mutation)\s+(\w+)", query["query"])
            self.say(server.query(name[1] if name else "", query.get("variables") or {}))
        else:
            self.say({})

    def say(self, answer: dict) -> None:
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass
