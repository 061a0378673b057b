"""Mutation check: break what PPO computes in one place at a time and see whether the tests notice.

    python tests/reliability/mutate.py [--jobs 2] [--only 'maths/*'] [--write docs/dev/mutants.md]

Every sign, comparison, condition, clip, mask, constant, detach, setting and lone call of the modules in mutants.py is
changed in turn. Each mutant runs the tests of its module in a process of its own, on a copy of the package that differs
in this one module. A mutant that passes them all has survived, and the exit status is 1. `--write` puts the modules
that were tested into the document and leaves its other rows alone.
"""

import argparse
import fnmatch
import multiprocessing
import os
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from docs_tables import replace_between
from equivalent_mutants import EQUIVALENT
from mutants import KILLED_BY, MODULES, ROOT, Mutant, mutants, mutated_source

TIME_LIMIT = 300  # seconds; an endless loop is a death too
START, END = "<!-- mutants -->", "<!-- end of mutants -->"
HEAD = ["| module | tests | mutants | killed | excused | survived |", "| --- | --- | ---: | ---: | ---: | ---: |"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="mutants tested at the same time")
    parser.add_argument("--only", default="*", help="pattern of modules, such as 'maths/*' or ppo/update.py")
    parser.add_argument("--write", type=Path, help="document that gets the result between its markers")
    arguments = parser.parse_args()
    modules = fnmatch.filter(MODULES, arguments.only)
    chosen = [mutant for module in modules for mutant in mutants(module)]
    import_libraries(modules)
    # A fresh fork per mutant: no module of one lives on in the next.
    with multiprocessing.get_context("fork").Pool(arguments.jobs, maxtasksperchild=1) as pool:
        for module in modules:
            if not pool.apply(survives, (module, None)):
                print(f"the tests of {module} fail without any mutation")
                return 2
        alive = []
        tasks = [(mutant.module, mutant) for mutant in chosen]
        for mutant, lives in zip(chosen, pool.imap(_survives, tasks, chunksize=1), strict=True):
            mark = "killed" if not lives else "EXCUSED" if excuse(mutant) else "ALIVE"
            print(f"{mark:10} {mutant.module}:{mutant.line} {mutant.function}: {mutant.change}", flush=True)
            alive += [mutant] if lives else []
    if arguments.write:
        write(arguments.write, modules, alive)
    unexcused = [mutant for mutant in alive if not excuse(mutant)]
    print(f"{len(chosen)} mutants, {len(chosen) - len(alive)} killed, {len(unexcused)} survived unexcused")
    return 1 if unexcused else 0


def import_libraries(modules: Sequence[str]) -> None:
    """What the tests need beside the package: imported once here, inherited by every child."""
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401
    import torch

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    torch.testing.assert_close(torch.ones(1), torch.ones(1))  # imports half a second's worth of torch
    if any(not module.startswith("maths/") for module in modules):
        import datasets  # noqa: F401
        import peft  # noqa: F401
        from transformers import AutoModelForCausalLM, GPT2LMHeadModel, LlamaForCausalLM  # noqa: F401


def _survives(task: tuple[str, Mutant | None]) -> bool:
    return survives(*task)


def survives(module: str, mutant: Mutant | None) -> bool:
    """Whether the module's tests pass on a package with the change (None: without any); for a process of its own."""
    import pytest

    def too_long(*_: object) -> None:
        raise TimeoutError

    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder), module, mutant)
        os.chdir(folder)
        sys.path.insert(0, folder)
        sys.dont_write_bytecode = True
        os.environ |= {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}  # of the processes that tests start
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        signal.signal(signal.SIGALRM, too_long)
        signal.alarm(TIME_LIMIT)
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-c", str(ROOT / "pyproject.toml")]
        return pytest.main([*options, *(str(ROOT / "tests" / test) for test in KILLED_BY[module])]) == 0


def lay_out(folder: Path, module: str, mutant: Mutant | None) -> None:
    """The package in links, but for the module that is changed."""
    package, changed = folder / "rlhf", Path(module)
    (package / changed.parent).mkdir(parents=True)
    for entry in (ROOT / "rlhf").iterdir():
        if entry.name != changed.parent.name:
            (package / entry.name).symlink_to(entry)
    for entry in (ROOT / "rlhf" / changed.parent).iterdir():
        if mutant is None or entry.name != changed.name:
            (package / changed.parent / entry.name).symlink_to(entry)
    if mutant:
        (package / module).write_text(mutated_source(mutant))


def excuse(mutant: Mutant) -> str | None:
    """Why the mutant may live; None if it may not."""
    return EQUIVALENT.get((mutant.module, mutant.function, mutant.change))


def write(document: Path, modules: Sequence[str], alive: list[Mutant]) -> None:
    """Put the rows and survivors of these modules into the document, in the order of MODULES."""
    rows, survivors = read(document)
    for module in modules:
        of = [mutant for mutant in alive if mutant.module == module]
        n, excused = len(mutants(module)), sum(excuse(mutant) is not None for mutant in of)
        tests = ", ".join(f"`{test}`" for test in KILLED_BY[module])
        cells = [f"`{module}`", tests, n, n - len(of), excused, len(of) - excused]
        rows[module] = "| " + " | ".join(map(str, cells)) + " |"
        survivors[module] = [f"- `{module}`, `{m.function}`: `{m.change}`: {excuse(m) or '**survived**'}" for m in of]
    lines = [rows[module] for module in MODULES if module in rows]
    below = [line for module in MODULES for line in survivors.get(module, [])]
    replace_between(document, START, END, "\n".join([*HEAD, *lines, "", *below]))


def read(document: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The rows and the lines of survivors that a document has, by module."""
    text = document.read_text(encoding="utf-8").partition(START)[2].partition(END)[0]
    rows = {match[1]: match[0] for match in re.finditer(r"^\| `([\w/]+\.py)` \|.*$", text, flags=re.MULTILINE)}
    survivors: dict[str, list[str]] = {}
    for match in re.finditer(r"^- `([\w/]+\.py)`, .*$", text, flags=re.MULTILINE):
        survivors.setdefault(match[1], []).append(match[0])
    return rows, survivors


if __name__ == "__main__":
    sys.exit(main())
