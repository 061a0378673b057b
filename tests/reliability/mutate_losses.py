"""Mutation check: break the maths in one place at a time and see whether the tests notice.

    python tests/reliability/mutate_losses.py [--jobs 2] [--only PATTERN] [--write docs/maths.md]

Every sign, comparison, clip, mask, constant and detach in the maths modules is changed in turn; each mutant runs the
maths tests in a process of its own on a copy of the package. A mutant that passes them all has survived, and the exit
status is 1. `--write` puts the result between the two markers in the document.
"""

import argparse
import fnmatch
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from docs_tables import replace_between
from mutants import MODULES, ROOT, Mutant, mutants, mutated_source

TESTS = ("test_tensors.py", "test_losses.py", "test_losses_gaps.py", "test_maths_properties.py")
TIME_LIMIT = 120  # seconds; an endless loop is a death too
START, END = "<!-- mutants -->", "<!-- end of mutants -->"

EQUIVALENT = {  # (function, change): why no test can tell
    ("entropy_from_logits", "0.0 -> 1.0"): "it is multiplied by a probability of 0",
    ("kl_from_logits", "0.0 -> 1.0"): "it is multiplied by a probability of 0",
}


def survives(mutant: Mutant | None) -> bool:
    """Whether the tests pass on a copy of the package with the change (None: without any)."""
    import pytest

    def too_long(*_: object) -> None:
        raise TimeoutError

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "rlhf" / "maths").mkdir(parents=True)
        (work / "rlhf" / "__init__.py").touch()
        (work / "rlhf" / "maths" / "__init__.py").touch()
        for module in MODULES:
            shutil.copy(ROOT / "rlhf" / module, work / "rlhf" / module)
        shutil.copytree(ROOT / "tests" / "golden", work / "tests" / "golden")
        for test in (*TESTS, "gappy.py"):
            shutil.copy(ROOT / "tests" / test, work / "tests")
        if mutant:
            (work / "rlhf" / mutant.module).write_text(mutated_source(mutant))
        os.chdir(work)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        signal.signal(signal.SIGALRM, too_long)
        signal.alarm(TIME_LIMIT)
        options = ["-x", "-q", "-p", "no:cacheprovider", "--rootdir", folder, "-o", "pythonpath=."]
        return pytest.main([*options, *(str(work / "tests" / test) for test in TESTS)]) == 0


def report(everything: list[Mutant], surviving: list[Mutant], seconds: float) -> str:
    """The result as Markdown: a table by module and kind, then what survived and why."""
    counts = Counter((m.module, m.kind) for m in everything)
    kinds = sorted({m.kind for m in everything})
    lines = ["| module | " + " | ".join(kinds) + " | all | killed |", "| --- |" + " ---: |" * (len(kinds) + 2)]
    for module in MODULES:
        of = [m for m in everything if m.module == module]
        cells = [str(counts[module, kind] or "") for kind in kinds]
        killed = len(of) - sum(m in surviving for m in of)
        lines.append(f"| `{module}` | " + " | ".join(cells) + f" | {len(of)} | {killed} |")
    excused = [m for m in surviving if (m.function, m.change) in EQUIVALENT]
    lines += ["", f"{len(everything)} mutants, {len(everything) - len(surviving)} killed, {len(excused)} equivalent"]
    lines[-1] += f", {len(surviving) - len(excused)} survived ({seconds:.0f} s)."
    for m in surviving:
        why = EQUIVALENT.get((m.function, m.change), "**survived**")
        lines.append(f"- `{m.module}` line {m.line}, `{m.function}`: `{m.change}`: {why}")
    lines += ["", "<details><summary>Every mutant</summary>", "", "| where | kind | change |", "| --- | --- | --- |"]
    escape = str.maketrans({"|": "\\|"})
    lines += [
        f"| `{m.module}:{m.line}` `{m.function}` | {m.kind} | `{m.change.translate(escape)}` |" for m in everything
    ]
    return "\n".join([*lines, "", "</details>"])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="mutants tested at the same time")
    parser.add_argument("--only", default="*", help="pattern of MODULE:FUNCTION, for a part of the mutants")
    parser.add_argument("--write", type=Path, help="document that gets the result between its markers")
    arguments = parser.parse_args()
    chosen = [m for f in MODULES for m in mutants(f) if fnmatch.fnmatch(f"{m.module}:{m.function}", arguments.only)]

    import hypothesis  # noqa: F401  imported once here, inherited by every child
    import pytest  # noqa: F401
    import torch

    torch.set_num_threads(1)
    started = time.time()
    # A fresh fork per mutant: no module of one lives on in the next.
    with multiprocessing.get_context("fork").Pool(arguments.jobs, maxtasksperchild=1) as pool:
        if not pool.apply(survives, (None,)):
            print("the tests fail without any mutation")
            return 2
        surviving = []
        for mutant, alive in zip(chosen, pool.imap(survives, chosen, chunksize=1), strict=True):
            mark = (
                "killed" if not alive else "EQUIVALENT" if (mutant.function, mutant.change) in EQUIVALENT else "ALIVE"
            )
            print(f"{mark:10} {mutant.module}:{mutant.line} {mutant.function}: {mutant.change}", flush=True)
            surviving += [mutant] if alive else []
    text = report(chosen, surviving, time.time() - started)
    if arguments.write:
        replace_between(arguments.write, START, END, text)
    unexcused = [m for m in surviving if (m.function, m.change) not in EQUIVALENT]
    print(f"{len(chosen)} mutants, {len(chosen) - len(surviving)} killed, {len(unexcused)} survived unexcused")
    return 1 if unexcused else 0


if __name__ == "__main__":
    sys.exit(main())
