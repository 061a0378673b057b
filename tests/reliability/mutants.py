"""Mutants of the maths: the same module with one sign, comparison, clip, mask, constant, cast or detach changed."""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("maths/tensors.py", "maths/kl.py", "maths/advantages.py", "maths/losses.py")

SWAPPED = {
    ast.Add: ("sign", ast.Sub()), ast.Sub: ("sign", ast.Add()), ast.Mult: ("factor", ast.Div()),
    ast.Div: ("factor", ast.Mult()), ast.BitAnd: ("mask", ast.BitOr()),
}  # fmt: skip
OPPOSITE = {ast.Gt: ast.Lt(), ast.Lt: ast.Gt(), ast.GtE: ast.Lt()}


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
