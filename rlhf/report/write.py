"""`rlhf report RUN [RUN ...]`: one HTML file, and PNGs of its main figures."""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from rlhf.errors import UserError, visible, with_kind
from rlhf.report.compare import Group, group_runs
from rlhf.report.figures import draw_figures
from rlhf.report.load import NoRunError, read_run
from rlhf.report.page import page
from rlhf.runs.files import write_atomically
from rlhf.runs.folder import CONFIG_FILE, METRICS_FILE

REPORT_FILE = "report.html"


def build_report(runs: list[Path], out: Path) -> list[Path]:
    """Write the page to `out` and PNGs beside it; returns the files, the page first.

    Raises UserError for a folder that holds no run, and for files in it that cannot be read.
    """
    groups = write_page(runs, out)
    with refusing_what_no_run_writes(runs):
        return [out, *draw_figures(groups, out)]


def write_report(runs: list[Path], out: Path) -> Path | None:
    """The page at the end of a training run, which must not fail for it: None, and a line that says why, instead."""
    try:
        write_page(runs, out)
    except Exception as error:
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        reason = " ".join(f"{kind}{error}".split())
        print(f"no report: {visible(reason)}; try again with: rlhf report {' '.join(map(str, runs))}", file=sys.stderr)
        return None
    return out


def write_page(runs: list[Path], out: Path) -> list[Group]:
    """Write the page; returns the runs that it is about. Raises what `build_report` raises."""
    with refusing_what_no_run_writes(runs):
        groups = group_runs([read_run(run) for run in each_once(runs)])
        content = page(groups)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, content)
    return groups


@contextlib.contextmanager
def refusing_what_no_run_writes(runs: list[Path]) -> Iterator[None]:
    """Turn what goes wrong deep inside a config or a metric of a kind that no run has written into one line."""
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:
        places = ", ".join(map(str, runs))
        raise UserError(f"{places} cannot be shown ({with_kind(error)}): a file is not as a run writes it") from error


class Parser(argparse.ArgumentParser):
    """One that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help says more")


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = Parser(prog="rlhf report", description="One HTML file, and PNGs, from run folders.", allow_abbrev=False)
    options.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output_dir of a run; several are compared")
    options.add_argument("--output", type=Path, help=f"default: {REPORT_FILE} in the run, or in the folder of the runs")
    return options


def main(argv: Sequence[str]) -> None:
    """The command: prints where the files are."""
    arguments = parser().parse_args(argv)
    runs = those_that_ran(each_once(arguments.runs))
    out = arguments.output or default_output(runs)
    try:
        files = build_report(runs, out)
    except OSError as error:
        raise UserError(f"cannot write {out} ({error}); choose another place with --output") from error
    for file in files:
        print(file)


def each_once(places: list[Path]) -> list[Path]:
    """The places without repetitions, with a line for each: a run that counted twice would look like two seeds."""
    seen: dict[Path, Path] = {}
    for place in places:
        if place.resolve() in seen:
            print(visible(f"left out: {place} names the run {seen[place.resolve()]} again"), file=sys.stderr)
        seen.setdefault(place.resolve(), place)
    return list(seen.values())


def those_that_ran(places: list[Path]) -> list[Path]:
    """Of several places those that hold a run, with a line for each other one: `runs/*` names earlier reports too.

    A single place, one that does not exist, and several without any run in them are left for `build_report` to refuse.
    """
    if len(places) == 1:
        return places
    with refusing_what_no_run_writes(places):
        reasons = {place: reason for place in places if place.exists() and (reason := why_not_a_run(place))}
    if len(reasons) == len(places):
        return places
    for reason in reasons.values():
        print(visible(f"left out: {reason}"), file=sys.stderr)
    return [place for place in places if place not in reasons]


def why_not_a_run(place: Path) -> str | None:
    """None for the folder of a run."""
    try:
        read_run(place)
    except NoRunError as error:
        return str(error)
    return None


def default_output(runs: list[Path]) -> Path:
    """In the run's folder; of several runs in the folder that holds them all.

    A folder that is a run itself keeps its own report: the one above it is taken. In place of the root of the disk it
    is the current folder.
    """
    if len(runs) == 1:
        return runs[0] / REPORT_FILE
    shared = Path(os.path.commonpath([str(run.absolute()) for run in runs]))
    while any((shared / name).is_file() for name in (CONFIG_FILE, METRICS_FILE)):
        shared = shared.parent
    return (Path.cwd() if shared == Path(shared.anchor) else shared) / REPORT_FILE
