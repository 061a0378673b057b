"""Mutants of what PPO computes: a module with one sign, comparison, mask, constant, setting or call changed."""

import ast
import copy
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MATHS_TESTS = ("test_tensors.py", "test_losses.py", "test_maths_properties.py")
KILLED_BY: dict[str, tuple[str, ...]] = {
    "maths/tensors.py": MATHS_TESTS,
    "maths/kl.py": MATHS_TESTS,
    "maths/advantages.py": MATHS_TESTS,
    "maths/losses.py": MATHS_TESTS,
    "ppo/spans.py": ("test_rollout.py",),
    "ppo/credit.py": ("test_credit.py",),
    "ppo/update.py": ("test_update.py", "test_guards.py"),
    "policy/policy.py": ("test_policy_full.py", "test_policy.py"),
    "policy/logprobs.py": ("test_logprobs.py", "test_fast_paths.py", "test_policy.py"),
    "policy/merged.py": ("test_policy.py", "test_fast_paths.py"),
    "models/load.py": ("test_models.py", "test_policy.py"),
}
"""Modules, and the tests that have to notice a mutant of each."""
MODULES = tuple(KILLED_BY)

SWAPPED = {
    ast.Add: ("sign", ast.Sub()), ast.Sub: ("sign", ast.Add()), ast.Mult: ("factor", ast.Div()),
    ast.Div: ("factor", ast.Mult()), ast.BitAnd: ("mask", ast.BitOr()),
}  # fmt: skip
OPPOSITE = {
    ast.Gt: ast.Lt(), ast.Lt: ast.Gt(), ast.GtE: ast.Lt(), ast.LtE: ast.Gt(), ast.Eq: ast.NotEq(), ast.NotEq: ast.Eq(),
    ast.Is: ast.IsNot(), ast.IsNot: ast.Is(), ast.In: ast.NotIn(), ast.NotIn: ast.In(),
}  # fmt: skip


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
        return self.kind if self.kind.startswith("without ") else f"{self.before} -> {self.after}"


def alternatives(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What to put in the place of a node: (kind, replacement)."""
    yield from instead_of_operation(node)
    yield from instead_of_step(node)


def instead_of_operation(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """The opposite operator, another constant."""
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=operand) if not isinstance(operand, ast.Constant):  # -1 is a dimension
            yield "sign", operand
        case ast.UnaryOp(op=ast.Not() | ast.Invert(), operand=operand):
            yield "condition", operand
        case ast.BinOp(op=op) if type(op) in SWAPPED:
            kind, swapped = SWAPPED[type(op)]
            yield kind, ast.BinOp(node.left, swapped, node.right)
        case ast.Compare(ops=[op]) if type(op) in OPPOSITE:
            yield "comparison", ast.Compare(node.left, [OPPOSITE[type(op)]], node.comparators)
        case ast.BoolOp(op=op):
            yield "condition", ast.BoolOp(ast.And() if isinstance(op, ast.Or) else ast.Or(), node.values)
        case ast.Constant(value=bool() as flag):
            yield "constant", ast.Constant(not flag)
        case ast.Constant(value=float() | int() as number):
            yield "constant", ast.Constant(number * 1.5 if isinstance(number, float) and number else number + 1)


def instead_of_step(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Another setting, no call, the other branch."""
    match node:
        case ast.Attribute(value=ast.Name(id="config") | ast.Attribute(attr="config"), attr=name) if other_setting(
            name
        ):
            yield "setting", ast.Attribute(node.value, other_setting(name) or name, ast.Load())
        case ast.Expr(value=ast.Call()):
            yield "statement", ast.Expr(ast.Constant(None))
        case ast.If(test=ast.Call() | ast.Name() | ast.Attribute() as test) if ast.unparse(test) != "TYPE_CHECKING":
            yield "condition", ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
        case ast.IfExp(test=ast.Call() | ast.Name() | ast.Attribute()):
            yield "condition", ast.IfExp(node.test, node.orelse, node.body)
        case ast.Call():
            yield from instead_of_call(node)


@cache
def other_setting(name: str) -> str | None:
    """The setting of PPOConfig that could be taken for this one, such as clip_range for value_clip_range."""
    tree = ast.parse((ROOT / "rlhf" / "config" / "ppo.py").read_text())
    config = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "PPOConfig")
    fields = [ast.unparse(node.target) for node in config.body if isinstance(node, ast.AnnAssign)]
    others = [field for field in fields if field != name]
    return next(iter(difflib.get_close_matches(name, others, n=1)), None) if name in fields else None


def instead_of_call(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    """Calls that clip, mask or detach, without doing so; calls that pass a setting on, without it."""
    for passed_on in node.keywords:
        if passed_on.arg not in (None, "dtype", "device") and is_setting(passed_on.value):
            yield (
                f"without {ast.unparse(passed_on)}",
                ast.Call(node.func, node.args, [k for k in node.keywords if k is not passed_on]),
            )
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


def is_setting(value: ast.expr) -> bool:
    return isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name)


def shown(node: ast.AST) -> str:
    """The node as source; of a branch, its condition."""
    return ast.unparse(ast.fix_missing_locations(node.test if isinstance(node, ast.If) else node))


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
            before, after = shown(node), shown(replacement)
            line = getattr(node, "lineno", 0)
            found.append(Mutant(module, function, line, positions[id(node)], kind, before, after))
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
    replacement = copy.deepcopy(
        next(new for kind, new in alternatives(target) if (kind, shown(new)) == (mutant.kind, mutant.after))
    )
    for parent in ast.walk(tree):
        for name, child in ast.iter_fields(parent):
            if child is target:
                setattr(parent, name, replacement)
            elif isinstance(child, list) and any(item is target for item in child):
                child[next(i for i, item in enumerate(child) if item is target)] = replacement
    return ast.unparse(ast.fix_missing_locations(tree))
