"""Drives a headless Chromium over its debugging pipe: no driver, no socket, nothing but the browser itself."""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

CHROMIUM = shutil.which("chromium")
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "End": 35, "Tab": 9, " ": 32}
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run", "about:blank")


class Browser:
    """One page of one browser; what it complains of is kept in `complaints`.

    Args:
        profile: An empty folder for the browser's own files.
    """

    def __init__(self, profile: Path) -> None:
        command_read, self.commands = os.pipe()
        self.answers, answer_write = os.pipe()
        program = f'exec "$0" "$@" 3<&{command_read} 4>&{answer_write}'  # the numbers that the browser expects
        self.process = subprocess.Popen(
            ["bash", "-c", program, str(CHROMIUM), f"--user-data-dir={profile}", *FLAGS],
            pass_fds=(command_read, answer_write), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(command_read)
        os.close(answer_write)
        self.received, self.count, self.session = b"", 0, None
        self.complaints: list[str] = []
        [target] = [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        os.write(self.commands, b'{"id": 0, "method": "Browser.close"}\0')
        self.process.wait(timeout=30)
        os.close(self.commands)
        os.close(self.answers)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools protocol and its result."""
        self.count += 1
        number = self.count
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def receive(self) -> dict[str, Any]:
        """The next message, whatever it is."""
        while b"\0" not in self.received:
            chunk = os.read(self.answers, 1 << 20)
            assert chunk, "the browser has ended"
            self.received += chunk
        line, self.received = self.received.split(b"\0", 1)
        message = json.loads(line)
        self.note(message.get("method"), message.get("params", {}))
        return message

    def note(self, event: str | None, details: dict[str, Any]) -> None:
        """Keep errors, warnings, and every request for anything that is not the page itself."""
        if event == "Runtime.exceptionThrown":
            self.complaints.append(str(details["exceptionDetails"].get("exception", details)))
        elif event == "Log.entryAdded":
            self.complaints.append(f"{details['entry']['level']}: {details['entry']['text']}")
        elif event == "Runtime.consoleAPICalled":
            self.complaints.append(f"console.{details['type']}: {details['args']}")
        elif event == "Network.requestWillBeSent" and details["type"] != "Document":
            url = details["request"]["url"]
            self.complaints += [] if url.startswith("data:") else [f"request: {url}"]
        elif event == "Page.javascriptDialogOpening":
            self.complaints.append(f"dialog: {details['message']}")

    def open(self, file: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Load a page at a size and in a color scheme; returns once it has loaded."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=file.resolve().as_uri())
        while self.receive().get("method") != "Page.loadEventFired":
            pass
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; waits for a promise."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def press(self, *keys: str) -> None:
        """Press keys by name."""
        for key in keys:
            for kind in ("rawKeyDown", "keyUp"):
                self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    def screenshot(self, file: Path, clip: dict[str, float] | None = None) -> None:
        """The whole page, or a rectangle of it, as a PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        area = clip or {"x": 0, "y": 0, "width": size["width"], "height": size["height"]}
        shot = self.call("Page.captureScreenshot", clip=area | {"scale": 1}, captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))

    def names(self, role: str) -> list[str]:
        """What a screen reader calls every element of a role."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        of_role = [n for n in nodes if n.get("role", {}).get("value") == role and not n["ignored"]]
        return [node.get("name", {}).get("value", "") for node in of_role]
