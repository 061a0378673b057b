"""`rlhf report RUN [RUN ...]`: one HTML file, and PNGs of its main figures."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rlhf.report.compare import Group, group_runs
from rlhf.report.figures import draw_figures
from rlhf.report.load import read_run
from rlhf.report.page import page
from rlhf.runs import write_atomically

REPORT_FILE = "report.html"


def build_report(runs: list[Path], out: Path) -> list[Path]:
    """Write the page to `out` and PNGs beside it; returns the files, the page first.

    Raises UserError for a folder that holds no run, and for files in it that cannot be read.
    """
    return [out, *draw_figures(write_page(runs, out), out)]


def write_report(runs: list[Path], out: Path) -> Path | None:
    """The page at the end of a training run, which must not fail for it: None, and a line that says why, instead."""
    try:
        write_page(runs, out)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"no report: {reason}; try again with: rlhf report {' '.join(map(str, runs))}", file=sys.stderr)
        return None
    return out


def write_page(runs: list[Path], out: Path) -> list[Group]:
    """Write the page; returns the runs that it is about. Raises what `build_report` raises."""
    groups = group_runs([read_run(run) for run in runs])
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, page(groups))
    return groups


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = argparse.ArgumentParser(prog="rlhf report", description="One HTML file, and PNGs, from run folders.")
    options.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output_dir of a run; several are compared")
    options.add_argument("--output", type=Path, help=f"default: {REPORT_FILE} in the run, or in the folder of the runs")
    return options


def main(argv: Sequence[str]) -> None:
    """The command: prints where the files are."""
    arguments = parser().parse_args(argv)
    for file in build_report(arguments.runs, arguments.output or default_output(arguments.runs)):
        print(file)


def default_output(runs: list[Path]) -> Path:
    """In the run's folder; of several runs, in the folder that holds them all."""
    return Path(runs[0] if len(runs) == 1 else os.path.commonpath([str(run.absolute()) for run in runs])) / REPORT_FILE
