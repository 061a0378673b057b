"""Mutation check: break the maths in one place at a time and see whether the tests notice.

    python scripts/mutate_losses.py [--jobs 2] [--only PATTERN] [--write docs/maths.md]

Every sign, comparison, clip, mask, constant and detach in the maths modules is changed in turn; each mutant runs the
maths tests in a process of its own on a copy of the package. A mutant that passes them all has survived, and the exit
status is 1. `--write` puts the result between the two markers in the document.
"""

import argparse
import ast
import copy
import fnmatch
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = ("tensors.py", "kl.py", "advantages.py", "losses.py")
TESTS = ("test_tensors.py", "test_losses.py", "test_maths_properties.py")
TIME_LIMIT = 120  # seconds; an endless loop is a death too
START, END = "<!-- mutants -->", "<!-- end of mutants -->"

SWAPPED = {
    ast.Add: ("sign", ast.Sub()), ast.Sub: ("sign", ast.Add()), ast.Mult: ("factor", ast.Div()),
    ast.Div: ("factor", ast.Mult()), ast.BitAnd: ("mask", ast.BitOr()),
}  # fmt: skip
OPPOSITE = {ast.Gt: ast.Lt(), ast.Lt: ast.Gt(), ast.GtE: ast.Lt()}

EQUIVALENT = {  # (function, change): why no test can tell
    ("entropy_from_logits", "0.0 -> 1.0"): "it is multiplied by a probability of 0",
    ("kl_from_logits", "0.0 -> 1.0"): "it is multiplied by a probability of 0",
}


@dataclass(frozen=True)
class Mutant:
    """One change: the position of the node in `ast.walk` order, and what replaces it."""

    module: str
    function: str
    line: int
    position: int
    kind: str
    before: str
    after: str

    @property
    def change(self) -> str:
        return f"{self.before} -> {self.after}"


def alternatives(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """What to put in the place of an expression: (kind, replacement)."""
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=operand) if not isinstance(operand, ast.Constant):  # -1 is a dimension
            yield "sign", operand
        case ast.BinOp(op=op) if type(op) in SWAPPED:
            kind, swapped = SWAPPED[type(op)]
            yield kind, ast.BinOp(node.left, swapped, node.right)
        case ast.Compare(ops=[op]) if type(op) in OPPOSITE:
            yield "comparison", ast.Compare(node.left, [OPPOSITE[type(op)]], node.comparators)
        case ast.Constant(value=float() | int() as number) if not isinstance(number, bool):
            yield "constant", ast.Constant(number * 1.5 if isinstance(number, float) and number else number + 1)
        case ast.Call():
            yield from instead_of_call(node)


def instead_of_call(node: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    """Calls that clip, mask or detach, without doing so."""
    match node.func:
        case ast.Attribute(attr="clamp" | "detach" | "abs" as name, value=receiver):
            yield ("clip" if name == "clamp" else name), receiver
        case ast.Attribute(attr="maximum" | "amax" as name, value=owner):
            swap = {"maximum": "minimum", "amax": "amin"}[name]
            yield "clip", ast.Call(ast.Attribute(owner, swap, ast.Load()), node.args, node.keywords)
        case ast.Name(id="min" | "max" as name):
            swap = {"min": "max", "max": "min"}[name]
            yield "clip", ast.Call(ast.Name(swap, ast.Load()), node.args, node.keywords)
        case ast.Name(id="zero_outside"):
            yield "mask", node.args[0]
        case ast.Name(id="masked_mean" | "masked_sum" as name):
            plain = ast.Attribute(node.args[0], name.removeprefix("masked_"), ast.Load())
            yield "mask", ast.Call(plain, [], [k for k in node.keywords if k.arg == "dim"])
        case ast.Attribute(value=ast.Name(id="torch"), attr="where"):
            yield "mask", node.args[1]


class WithoutWidening(ast.NodeTransformer):
    """Every `at_least_float32(x)` as `x`. One alone often changes nothing: the other operand widens the result."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        is_cast = isinstance(node.func, ast.Name) and node.func.id == "at_least_float32"
        return node.args[0] if is_cast else node


def mutants(module: str) -> list[Mutant]:
    """All mutants of a module; docstrings, annotations, messages and imports are left alone."""
    tree = ast.parse((ROOT / "rlhf" / module).read_text())
    positions = {id(node): position for position, node in enumerate(ast.walk(tree))}
    found = []

    def visit(node: ast.AST, function: str) -> None:
        if isinstance(node, ast.Raise | ast.arg | ast.Import | ast.ImportFrom | ast.JoinedStr):
            return
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            function = node.name if function == "" or isinstance(node, ast.ClassDef) else f"{function}.{node.name}"
            if isinstance(node, ast.FunctionDef) and "at_least_float32(" in " ".join(map(ast.unparse, node.body)):
                where = Mutant(module, function, node.lineno, positions[id(node)], "dtype", "at_least_float32(x)", "x")
                found.append(where)
        for kind, replacement in alternatives(node):
            assert isinstance(node, ast.expr)
            before, after = ast.unparse(node), ast.unparse(ast.fix_missing_locations(replacement))
            found.append(Mutant(module, function, node.lineno, positions[id(node)], kind, before, after))
        for name, child in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "slice"):
                continue
            for item in child if isinstance(child, list) else [child]:
                if isinstance(item, ast.AST):
                    visit(item, function)

    visit(tree, "")
    return found


def mutated_source(mutant: Mutant) -> str:
    """The module's source with the one change made."""
    tree = ast.parse((ROOT / "rlhf" / mutant.module).read_text())
    target = list(ast.walk(tree))[mutant.position]
    if mutant.kind == "dtype":
        WithoutWidening().visit(target)
        return ast.unparse(tree)
    replacement = copy.deepcopy(next(new for kind, new in alternatives(target) if kind == mutant.kind))
    for parent in ast.walk(tree):
        for name, child in ast.iter_fields(parent):
            if child is target:
                setattr(parent, name, replacement)
            elif isinstance(child, list) and any(item is target for item in child):
                child[next(i for i, item in enumerate(child) if item is target)] = replacement
    return ast.unparse(ast.fix_missing_locations(tree))


def survives(mutant: Mutant | None) -> bool:
    """Whether the tests pass on a copy of the package with the change (None: without any)."""
    import pytest

    def too_long(*_: object) -> None:
        raise TimeoutError

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "rlhf").mkdir()
        (work / "rlhf" / "__init__.py").touch()
        for module in MODULES:
            shutil.copy(ROOT / "rlhf" / module, work / "rlhf")
        shutil.copytree(ROOT / "tests" / "golden", work / "tests" / "golden")
        for test in TESTS:
            shutil.copy(ROOT / "tests" / test, work / "tests")
        if mutant:
            (work / "rlhf" / mutant.module).write_text(mutated_source(mutant))
        os.chdir(work)
        sys.path.insert(0, folder)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        signal.signal(signal.SIGALRM, too_long)
        signal.alarm(TIME_LIMIT)
        return pytest.main(["-x", "-q", "-p", "no:cacheprovider", *(str(work / "tests" / t) for t in TESTS)]) == 0


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
        document = arguments.write.read_text()
        head, rest = document.split(START)
        arguments.write.write_text(head + START + "\n" + text + "\n" + END + rest.split(END)[1])
    unexcused = [m for m in surviving if (m.function, m.change) not in EQUIVALENT]
    print(f"{len(chosen)} mutants, {len(chosen) - len(surviving)} killed, {len(unexcused)} survived unexcused")
    return 1 if unexcused else 0


if __name__ == "__main__":
    sys.exit(main())
