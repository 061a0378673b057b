"""The sandbox process: reads code from stdin, renders it in a fresh JavaScript context, writes what came of it.

Started by `rlhf.rewards.react.render.pool` as `python -I -S worker.py <folder of quickjs> <scripts> <seconds> <bytes>`.
It imports nothing of this project, so that no process pays for torch. Both directions carry frames: four bytes of
length, then UTF-8. An answer is `+<stand-ins>:<html>` or `-<reason>`. After an answer with a `!` in front the
worker exits, because it has grown or done its share. A completion that outlasts its time inside the engine, where
no JavaScript limit reaches, kills the process: the kernel's timer does, even if the parent is gone by then.
"""

import importlib
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

sys.path.append(sys.argv[1])
quickjs: Any = importlib.import_module("quickjs")

MAX_JOBS = 500  # then a fresh process takes over
MAX_GROWTH = 64 << 10  # of the peak memory, in kB
STACK = 1 << 20
ADDRESS_SPACE = 1 << 30


class Renderer:
    """Transpiles in one context, which never runs a completion, and renders each completion in its own."""

    def __init__(self, scripts: Path, seconds: float, memory: int) -> None:
        self.seconds, self.memory = seconds, memory
        self._transpiler_script = (scripts / "transpile.js").read_text("utf-8")
        harness = Path(__file__).with_name("harness.js").read_text("utf-8")
        self._page_script = f"({harness})({(scripts / 'react.js').read_text('utf-8')})"
        self._transpile = self._evaluate(self._transpiler_script)

    def render(self, code: str) -> str:
        try:
            script = self._transpile(code)
        except quickjs.JSException as error:
            reason = _first_line(error)
            if not reason.startswith("SyntaxError"):  # cut off in the middle: start the transpiler afresh
                self._transpile = self._evaluate(self._transpiler_script)
            return f"-does not transpile: {reason}"
        try:
            answer = self._evaluate(self._page_script)(script)
        except quickjs.JSException as error:
            return f"-{_first_line(error)}"
        return answer if isinstance(answer, str) and answer[:1] in ("+", "-") else "-no result"

    def _evaluate(self, script: str) -> Any:
        context = quickjs.Context()
        context.set_memory_limit(self.memory)
        context.set_max_stack_size(STACK)
        context.set_time_limit(self.seconds)
        return context.eval(script)


def _first_line(error: Exception) -> str:
    reason = str(error).partition("\n")[0]
    return "time limit exceeded" if reason == "InternalError: interrupted" else reason[:300]


def give_up_rights() -> None:
    """No files, no processes, no core dumps, bounded memory; whatever is open stays open."""
    limits = {"RLIMIT_NOFILE": 3, "RLIMIT_FSIZE": 0, "RLIMIT_NPROC": 0, "RLIMIT_CORE": 0, "RLIMIT_AS": ADDRESS_SPACE}
    for name, limit in limits.items():
        _, hard = resource.getrlimit(getattr(resource, name))
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)
        resource.setrlimit(getattr(resource, name), (limit, limit))


def read_frame(stream: BinaryIO) -> str | None:
    header = stream.read(4)
    return stream.read(*struct.unpack(">I", header)).decode() if len(header) == 4 else None


def write_frame(stream: BinaryIO, text: str) -> None:
    data = text.encode("utf-8", "replace")
    stream.write(struct.pack(">I", len(data)) + data)
    stream.flush()


def main() -> None:
    renderer = Renderer(Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
    give_up_rights()
    write_frame(sys.stdout.buffer, "ready")
    baseline = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for job in range(1, MAX_JOBS + 1):
        code = read_frame(sys.stdin.buffer)
        if code is None:
            return
        signal.setitimer(signal.ITIMER_PROF, 2 * renderer.seconds + 0.5)  # CPU time; its signal ends the process
        answer = renderer.render(code)
        signal.setitimer(signal.ITIMER_PROF, 0)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - baseline > MAX_GROWTH
        write_frame(sys.stdout.buffer, f"!{answer}" if grown or job == MAX_JOBS else answer)
        if grown:
            return


if __name__ == "__main__":
    main()
