"""`rlhf doctor`: the table, the verdict, the exit status."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlhf.config import PPOConfig
from rlhf.doctor.check import Check
from rlhf.doctor.examination import examine
from rlhf.errors import visible
from rlhf.models.precision import chooses_dtype

STYLES = {"ok": "green", "warning": "yellow", "failure": "bold red"}


@chooses_dtype
def run_doctor(config: PPOConfig) -> None:
    """Examine a PPO run and print what was found; exit status 1 if a check failed."""
    console = Console()
    with console.status("examining"):
        checks = list(examine(config))
    console.print(table(checks))
    console.print(verdict(checks))
    if any(check.verdict == "failure" for check in checks):
        sys.exit(1)


def table(checks: Sequence[Check]) -> Table:
    """One row per check; what to change stands below what was found."""
    result = Table(show_lines=False)
    result.add_column("check", no_wrap=True)
    result.add_column("verdict", no_wrap=True)
    result.add_column("measured", overflow="fold")
    for check in checks:
        text = Text(visible(check.found))
        if check.fix:
            text.append(f"\n-> {visible(check.fix)}", style=STYLES[check.verdict])
        result.add_row(Text(visible(check.name)), Text(check.verdict, style=STYLES[check.verdict]), text)
    return result


def verdict(checks: Sequence[Check]) -> str:
    """One line for all of it."""
    count = {kind: sum(check.verdict == kind for check in checks) for kind in STYLES}
    if count["failure"]:
        return f"{plural(count['failure'], 'failure')}: do not start this run yet"
    if count["warning"]:
        return f"ready to run, with {plural(count['warning'], 'warning')}"
    return f"ready to run: {len(checks)} checks, nothing to fix"


def plural(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
