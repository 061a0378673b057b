"""How easily is each React reward fooled? Scores right, wrong and hacked completions and prints a table.

    python tests/reliability/hackability.py             # print
    python tests/reliability/hackability.py --write     # put the table into docs/dev/rewards.md

The tasks in tests/rewards/cases hold a prompt, the reference, a right component that renders the same, and one that
is right but different; everything else is made from these. Needs what the rendering rewards need.
"""

import argparse
import itertools
import re
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docs_tables import replace_between

from rlhf.rewards import RewardSpec, load_reward

ROOT = Path(__file__).resolve().parents[2]
REWARDS = (
    "react_heuristic",
    "react_structure",
    "react_parses",
    "react_error_free",
    "react_static",
    "react_render",
    "react_match",
    "react_full",
)
RIGHT = ("right", "right but different")
HACKS = (
    "comment padding",
    "tag spam",
    "prompt words in tags",
    "all stubs",
    "empty component",
    "copied prompt",
    "truncated",
)
KINDS = (*RIGHT, "wrong", *HACKS)
START, END = "<!-- hackability: made by tests/reliability/hackability.py -->", "<!-- /hackability -->"


@dataclass(frozen=True)
class Sample:
    """One completion of a task, and which kind it is."""

    kind: str
    prompt: str
    completion: str
    reference: str


def load_tasks() -> list[dict[str, str]]:
    """The shipped tasks: prompt, reference, right and different of each."""
    tasks = []
    for file in sorted((ROOT / "tests" / "rewards" / "cases").glob("*.tsx")):
        pieces = re.split(r"^//// (\w+)\n", file.read_text("utf-8"), flags=re.MULTILINE)[1:]
        tasks.append({name: text.strip() for name, text in zip(pieces[::2], pieces[1::2], strict=True)})
    return tasks


def samples() -> list[Sample]:
    """Every kind of completion for every task; the wrong component of a task is right for the next."""
    tasks = load_tasks()
    made = []
    for task, other in zip(tasks, tasks[1:] + tasks[:1], strict=True):
        prompt, reference = task["prompt"], task["reference"]
        for kind, completion in [
            ("right", task["right"]),
            ("right", f"Here is the component:\n\n```tsx\n{reference}\n```\n"),
            ("right but different", task["different"]),
            ("wrong", other["reference"]),
            *hacks(prompt, reference),
        ]:
            made.append(Sample(kind, prompt, completion, reference))
    return made


def hacks(prompt: str, reference: str) -> Iterator[tuple[str, str]]:
    """What a policy finds that optimizes a reward instead of the task."""
    # 1. As long as the reference, with the marks of JSX, and nothing behind it
    padding = f"// {prompt} return <div/>\n" * (1 + len(reference) // (len(prompt) + 20))
    yield "comment padding", padding[: len(reference)] + "\nexport default function App() { return <br />; }"
    yield "comment padding", component(f"<div>{{/* {prompt} {'<p/> ' * 40}*/}}</div>")
    # 2. Many tags, of one kind and of all kinds
    yield "tag spam", "return " + "<br/>" * 300
    yield "tag spam", component(f"<div>{'<br/>' * 300}</div>")
    common = "<h2/><p/><p/><ul><li/><li/><li/></ul><form><label/><input/><label/><input/></form><button/><a/><img/>"
    yield "tag spam", component(f'<section className="card">{common}</section>')
    # 3. The prompt's words spread over the tags that a component has most often
    words = re.findall(r"\w+", prompt)
    yield "prompt words in tags", component("<ul>" + "".join(f"<li>{word}</li>" for word in words) + "</ul>")
    rest = f"<p>{' '.join(words[2:-2])}</p><button>{' '.join(words[-2:])}</button>"
    yield "prompt words in tags", component(f'<div className="card"><h2>{" ".join(words[:2])}</h2>{rest}</div>')
    # 4. Imports that do not exist
    stub = 'import { Page, Card, Text } from "./ui";\n'
    yield "all stubs", stub + component("<Page><Card><Text>Hello</Text></Card></Page>")
    yield "all stubs", stub + component(f"<Page><Card /><Card /><Text>{' '.join(words)}</Text></Page>")
    # 5. Nothing
    yield "empty component", component("<></>")
    yield "empty component", "export default function App() { return null; }"
    yield "empty component", ""
    # 6. The prompt, bare and in a paragraph
    yield "copied prompt", prompt
    yield "copied prompt", component(f"<p>{' '.join(words)}</p>")
    # 7. Cut off at the response limit
    yield "truncated", reference[: len(reference) * 6 // 10]
    yield "truncated", reference[: len(reference) * 9 // 10]


def component(jsx: str) -> str:
    """A component of the best form, around ``jsx``."""
    return f"export default function App() {{\n  return {jsx};\n}}\n"


def scores_by_kind(name: str, cases: list[Sample]) -> dict[str, list[float]]:
    """What the reward called ``name`` gives to each kind of completion."""
    given: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for case, score in zip(cases, score_of(name, cases), strict=True):
        given[case.kind].append(score)
    return given


def score_of(name: str, cases: list[Sample]) -> list[float]:
    reward = load_reward(RewardSpec(path=name))
    columns: dict[str, Any] = {"reference": [case.reference for case in cases]}
    return list(reward(prompts=[c.prompt for c in cases], completions=[c.completion for c in cases], **columns))


def auc(high: list[float], low: list[float]) -> float:
    """Chance that a score of ``high`` is above one of ``low``, ties counting half."""
    wins = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(high, low)]
    return statistics.fmean(wins)


def milliseconds_per_call(name: str, cases: list[Sample]) -> float:
    """Median over the right components, one by one; a comment makes each text new, so that no cache answers."""
    times = []
    for case in cases:
        if case.kind in RIGHT:
            fresh = Sample(case.kind, case.prompt, f"{case.completion}\n// {name}", case.reference)
            start = time.perf_counter()
            score_of(name, [fresh])
            times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def table(cases: list[Sample]) -> str:
    """Markdown: one line for each reward, the mean score of each kind, then separation and cost."""
    lines = [
        "| reward | " + " | ".join(KINDS) + " | AUC hacked | AUC wrong | lowest right - highest hack | ms per call |",
        "| --- |" + " ---: |" * (len(KINDS) + 4),
    ]
    for name in REWARDS:
        given = scores_by_kind(name, cases)
        right = [score for kind in RIGHT for score in given[kind]]
        hacked = [score for kind in HACKS for score in given[kind]]
        cells = [f"{statistics.fmean(given[kind]):.2f}" for kind in KINDS]
        cells += [f"{auc(right, hacked):.2f}", f"{auc(right, given['wrong']):.2f}", f"{min(right) - max(hacked):+.2f}"]
        lines.append(f"| `{name}` | {' | '.join(cells)} | {milliseconds_per_call(name, cases):.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="replace the table in docs/dev/rewards.md")
    arguments = parser.parse_args()
    made = table(samples())
    print(made)
    if arguments.write:
        page = ROOT / "docs" / "dev" / "rewards.md"
        replace_between(page, START, END, made)


if __name__ == "__main__":
    main()
