"""The architecture: rooms in one order, no circles, no long files, light imports."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rlhf
from rlhf import moved

PACKAGE = Path(__file__).parents[1] / "rlhf"
ORDER = [
    "moved",
    "__init__",
    "errors",
    "extras",
    "config",
    "maths",
    "parallel",
    "runs",
    "data",
    "models",
    "fast",
    "policy",
    "sampling",
    "rewards",
    "environments",
    "watch",
    "report",
    "tracking",
    "ppo",
    "evaluation",
    "stages",
    "doctor",
    "classic",
    "toy",
    "cli",
    "__main__",
]
"""A folder imports from those before it; `__init__` names modules without importing them."""
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def for_typing_only(tree: ast.Module) -> set[ast.AST]:
    """The statements under `if TYPE_CHECKING:`."""
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    return {inner for guard in guards for statement in guard.body for inner in ast.walk(statement)}


def imported(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports, in functions too, but not for typing alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = for_typing_only(tree)
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in inner)


IMPORTS = {name: set(imported(path)) - {name} for name, path in MODULES.items()}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Some circle of a directed graph, as the nodes on it; empty where there is none."""
    left = {node: set(targets) for node, targets in graph.items()}
    while leaves := [node for node, targets in left.items() if not targets & left.keys()]:
        for leaf in leaves:
            del left[leaf]
    return sorted(left)


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def test_circle_finds_one() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["a", "b", "c"]


def test_no_circle_between_files() -> None:
    assert circle(IMPORTS) == []


def test_every_room_imports_only_from_those_before_it() -> None:
    rank = {name: position for position, name in enumerate(ORDER)}
    wrong = [
        f"{module} -> {target}"
        for module, targets in IMPORTS.items()
        for target in targets
        if room(target) != "__init__" and room(module) != room(target) and rank[room(module)] < rank[room(target)]
    ]
    assert wrong == []


def test_every_folder_says_what_it_is_for():
    """A folder without an `__init__` still imports, which hides that a pattern of .gitignore has left it out."""
    for folder in {path.parent for path in PACKAGE.rglob("*.py")}:
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))), folder


def test_the_package_itself_holds_few_modules_and_no_file_is_long() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 8
    assert [name for name, path in MODULES.items() if len(path.read_text(encoding="utf-8").splitlines()) > 300] == []


def test_float64_is_for_the_cpu_alone() -> None:
    """MPS has none: what becomes double has come from `.cpu()` in the same expression."""
    calls = {
        f"{name}:{call.lineno}:{call.col_offset}": ast.unparse(call.func.value)
        for name, path in MODULES.items()
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "double"
    }
    assert calls
    assert {place for place, of in calls.items() if not of.endswith(".cpu()")} == set()


@pytest.mark.parametrize(
    "command", ["import rlhf.maths.losses", "import rlhf.toy", "from rlhf.cli import main; main(['--help'])"]
)
def test_maths_toys_and_help_need_no_heavy_library(command: str) -> None:
    heavy = "{'transformers', 'trl', 'peft', 'datasets', 'accelerate', 'wandb'}"
    check = f"import sys; {command}; found = {heavy} & sys.modules.keys(); assert not found, found"
    subprocess.run([sys.executable, "-c", check], check=True, stdout=subprocess.DEVNULL)


def test_old_module_names_import_and_warn_once() -> None:
    code = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from rlhf.losses import clipped_policy_loss, gae, kl_estimate
    from rlhf.losses import discounted_sum
    from rlhf.tensors import whiten
    import rlhf.maths.advantages, rlhf.maths.tensors
assert gae is rlhf.maths.advantages.gae and whiten is rlhf.maths.tensors.whiten
said = [str(warning.message) for warning in caught if warning.category is FutureWarning]
assert len(said) == 2, said
assert said[0].startswith("rlhf.losses has moved to rlhf.maths.losses"), said
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_moved_name_leads_somewhere() -> None:
    for old, homes in moved.MODULES.items():
        assert set(homes) <= MODULES.keys(), old
    with pytest.warns(FutureWarning, match=r"rlhf\.ppo\.run_ppo has moved to rlhf\.stages\.ppo\.run_ppo"):
        assert moved.look_up("rlhf.ppo", "run_ppo") is rlhf.run_ppo
    with pytest.raises(AttributeError, match="no_such_name"):
        moved.look_up("rlhf.ppo", "no_such_name")


def lines_of(folder: str) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (PACKAGE / folder).glob("*.py"))


def test_the_core_is_as_short_as_the_readme_says():
    assert lines_of("ppo") < 1400
    assert lines_of("maths") < 600
    readme = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    said = re.search(r"`rlhf/ppo/`,\s.* about\s+([\d,]+) lines, and `rlhf/maths/`, .* about ([\d,]+)\.", readme)
    for folder, number in zip(("ppo", "maths"), said.groups(), strict=True):
        assert lines_of(folder) == pytest.approx(int(number.replace(",", "")), rel=0.15), folder
