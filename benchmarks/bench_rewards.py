"""How many components a second the React rewards score.

    python benchmarks/bench_rewards.py [--texts 400]

`react_render` on two cores, which two workers and this program share; `react_static` on one. Two sets of texts: the
shipped training data (median 0.25 kB) and pages of three components (2 kB). The last line is JSON, with the slower
of the two figures for each reward.
"""

import argparse
import json
import os
import re
import statistics
import time
from pathlib import Path

from rlhf.rewards.react.render.pool import RenderPool
from rlhf.rewards.react.static import ReactStatic

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 2


def short_texts(count: int) -> list[str]:
    lines = (ROOT / "data" / "react" / "train.jsonl").read_text("utf-8").splitlines()
    return [json.loads(lines[i % len(lines)])["completion"] for i in range(count)]


def long_texts(count: int) -> list[str]:
    """Pages made of three of the components in tests/rewards/cases."""
    components = []
    for file in sorted((ROOT / "tests" / "rewards" / "cases").glob("*.tsx")):
        (code,) = re.findall(r"^//// reference\n(.*?)^////", file.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
        (name,) = re.findall(r"export default function (\w+)", code)
        components.append((name, code.replace("export default ", "")))
    pages = []
    for i in range(count):
        names, codes = zip(*(components[(i + j) % len(components)] for j in (0, 1, 3)), strict=True)
        children = "".join(f"<{name} />" for name in names)
        page = f"export default function Page() {{\n  return <main>{children}</main>;\n}}\n"
        pages.append("\n".join([*codes, page]))
    return pages


def renders_per_second(texts: list[str]) -> float:
    unique = [f"{text}\n// {i}" for i, text in enumerate(texts)]  # no text is answered from the cache
    with RenderPool(WORKERS, seconds=1.0) as pool:
        pool.render(["first", "second"])  # start the processes
        start = time.perf_counter()
        pages = pool.render(unique)
        seconds = time.perf_counter() - start
    failed = [page.error for page in pages if not page.html]
    if failed:
        raise SystemExit(f"{len(failed)} of {len(texts)} components did not render: {failed[0]}")
    return len(texts) / seconds


def static_per_second(texts: list[str]) -> float:
    reward = ReactStatic()
    start = time.perf_counter()
    reward(prompts=texts, completions=texts)
    return len(texts) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--texts", type=int, default=400, help="how many of each set")
    count = parser.parse_args().texts
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:WORKERS])  # the workers inherit it
    rendered, static = [], []
    for name, texts in [("short", short_texts(count)), ("long", long_texts(count))]:
        rendered.append(renders_per_second(texts))
        static.append(static_per_second(texts))
        size = statistics.median(len(text) for text in texts)
        print(
            f"{name}: {size:.0f} characters, {rendered[-1]:.0f} rendered/s on 2 cores, {static[-1]:.0f} static/s on 1"
        )
    print(json.dumps({"render_per_s": round(min(rendered), 1), "static_per_s": round(min(static), 1)}))


if __name__ == "__main__":
    main()
