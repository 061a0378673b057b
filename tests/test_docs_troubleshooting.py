"""docs/troubleshooting.md quotes errors as the code words them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import ROOT, text_of


def texts(node: ast.AST) -> str:
    """A string in the source, adjacent pieces joined; what is filled in is left out."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=parts):
            return "".join(map(texts, parts))
        case ast.BinOp(left=left, right=right):
            return texts(left) + texts(right)
    return ""


def strings() -> Iterator[str]:
    """All of them but docstrings."""
    for path in sorted(Path(ROOT / "rlhf").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docs = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        yield from (texts(node) for node in ast.walk(tree) if node not in docs)


SAID = "\n".join(strings())
BY_ERROR = text_of("docs/troubleshooting.md").split("## By error line", 1)[1]
QUOTED = [
    words for row in re.findall(r"^\| (`.*?) \|", BY_ERROR, re.MULTILINE) for words in re.findall(r"`([^`]+)`", row)
]


def test_there_are_errors_to_look_for():
    assert len(QUOTED) > 30


@pytest.mark.parametrize("words", QUOTED)
def test_the_code_says_so(words):
    assert words in SAID
