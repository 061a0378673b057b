"""Results as a table: in the terminal, in Markdown, and as one line of JSON."""

import json
from collections.abc import Sequence
from pathlib import Path

from docs_tables import replace_between

from faults.fault import Result

BEGIN, END = "<!-- fault matrix -->", "<!-- end of the fault matrix -->"
COLUMNS = ("fault", "where", "times", "expected", "seen", "updates lost")


def cells(result: Result) -> list[str]:
    """A row: times as survived / injected where not all were."""
    times = str(result.injected) if result.ok else f"{result.survived} of {result.injected}"
    seen = result.seen if result.ok else f"NOT SURVIVED: {result.seen}"
    fault = result.fault
    return [fault.name, fault.where, times, fault.expected, seen, str(result.repeated)]


def line(result: Result) -> str:
    """What the terminal shows as soon as a fault has been tried."""
    name, where, times, _, seen, repeated = cells(result)
    verdict = "ok" if result.ok else "!!"
    return f"{verdict} {name:<43} {where:<46} {times:>8} {result.seconds:6.1f} s  lost {repeated}  {seen}"


def markdown(results: Sequence[Result]) -> str:
    """The table of docs/dev/reliability.md."""
    rows = [COLUMNS, ["---"] * len(COLUMNS), *(cells(result) for result in results)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def summary(results: Sequence[Result]) -> str:
    """One line of JSON: faults tried, those survived each time, and those after which something was lost for good."""
    return json.dumps(
        {
            "faults": len(results),
            "survived": sum(result.ok for result in results),
            "lost": sum(result.lost > 0 for result in results),
            "injections": sum(result.injected for result in results),
        }
    )


def write_into(document: Path, results: Sequence[Result]) -> None:
    """Replace what stands between the two marks in a Markdown file by the table."""
    replace_between(document, BEGIN, END, markdown(results))
