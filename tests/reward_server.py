"""A server on this machine that answers as it is told to, faults included."""

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

HANG = 30.0  # seconds, longer than any time-out of a test


@dataclass
class Answer:
    """What to send back: JSON or bytes; after how long, with which pause between the bytes."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0
    drip: float = 0.0


@dataclass
class Service:
    """Where it listens, and what it has been asked: (path, headers, body)."""

    url: str
    asked: list[tuple[str, dict[str, str], Any]]
    most_at_once: int = 0


@contextlib.contextmanager
def serving(answer: Callable[[Any, int], Answer]) -> Iterator[Service]:
    """A server whose answer to the n-th request is `answer(body, n)`, until the block ends."""
    lock, at_once, over = threading.Lock(), [0], threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(service.asked)
                service.asked.append((self.path, dict(self.headers), body))
                at_once[0] += 1
                service.most_at_once = max(service.most_at_once, at_once[0])
            with contextlib.suppress(OSError):  # the client may have given up
                self.send(answer(body, number))
            with lock:
                at_once[0] -= 1

        def send(self, reply: Answer) -> None:
            over.wait(reply.wait)
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(content)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            for start in range(0, len(content), 1 if reply.drip else len(content) or 1):
                self.wfile.write(content[start : start + (1 if reply.drip else len(content))])
                over.wait(reply.drip)

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    service = Service(f"http://127.0.0.1:{server.server_port}", [])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield service
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def chat(content: Any) -> Answer:
    """An answer of the chat API."""
    return Answer({"choices": [{"message": {"role": "assistant", "content": content}}]})


def closed_port() -> int:
    """A port on which nobody listens."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        return server.server_port
