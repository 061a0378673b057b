"""Does a text parse as TSX, and if not, where does it stop making sense? (tree-sitter)"""

import contextlib
import functools
import re

import tree_sitter_typescript
from tree_sitter import Language, Node, Parser, Query, QueryCursor, Tree

MAX_CHARACTERS = 50_000  # beyond this a text counts as broken: parse time is not linear on hostile input
STEPS_PER_BYTE = 0.1  # more, and it counts as broken too: recovery is quadratic. Real code needs 0.01, dense code 0.06
_CHUNK = 256  # bytes handed to the parser at a time while looking for the error

_POSITION = re.compile(r"row:(\d+), col:(\d+)$")


class Syntax:
    """A text parsed as TSX.

    Attributes:
        root: tree-sitter's `program` node, repaired as well as it can where the text is broken; empty where
            that takes too long.
        length: characters in the text.
    """

    def __init__(self, code: str) -> None:
        self.length = len(code)
        self._source = code[:MAX_CHARACTERS].encode("utf-8", "replace")  # lone surrogates become "?"
        tree = _parse_within_limits(self._source)
        self._gave_up = tree is None
        self.root = (tree or Parser(tsx()).parse(b"")).root_node
        self._mismatch = _first_mismatched_tag(self.root)

    @property
    def parses(self) -> bool:
        """True if the text is not empty, at most `MAX_CHARACTERS` long and a TSX program without error."""
        broken = self._gave_up or self.root.has_error or self._mismatch is not None
        return not broken and self.length <= MAX_CHARACTERS and bool(self._source.strip())

    @functools.cached_property
    def error(self) -> int | None:
        """Character offset of the first error; None if the text `parses`.

        That is the first token with which no program can go on, or the end of the text if it is unfinished, or
        a closing tag with another name than its opening tag (tree-sitter accepts these, React does not). An
        empty text has its error at 0, one longer than `MAX_CHARACTERS` there at the latest.
        """
        if self.parses:
            return None
        offset = len(self._source) if self._mismatch is None else self._mismatch
        if self._gave_up or self.root.has_error:
            offset = min(offset, _first_failure(self._source))
        return len(self._source[:offset].decode("utf-8", "ignore")) if self._source.strip() else 0

    @property
    def error_free_share(self) -> float:
        """Share of the text before its first error, in [0, 1]; 0 for an empty text."""
        return 1.0 if self.error is None else self.error / max(1, self.length)


def parses(code: str) -> bool:
    """True if `code` is not empty and parses as TSX with no error (see `Syntax`)."""
    return Syntax(code).parses


def error_free_share(code: str) -> float:
    """Share of the characters of `code` before its first error (see `Syntax.error`), in [0, 1].

    1 if it parses, and also if it merely ends too early: up to there nothing is wrong.
    """
    return Syntax(code).error_free_share


def has_jsx_structure(code: str) -> bool:
    """True if `code` has the outline of a component: `return`, `<` and `/>` or `</` all occur.

    A substring check; it does not look at the order.
    """
    return "return" in code and "<" in code and ("/>" in code or "</" in code)


def _parse_within_limits(source: bytes) -> Tree | None:
    """The tree of `source`; None if it takes more than `STEPS_PER_BYTE`, counted so that no clock decides."""
    steps, allowed = 0, 200 + STEPS_PER_BYTE * len(source)

    def read(offset: int, point: object) -> bytes:
        return source[offset:]

    def is_too_long(offset: int, has_error: bool) -> bool:
        nonlocal steps
        steps += 1
        return steps > allowed

    try:
        return Parser(tsx()).parse(read, progress_callback=is_too_long)
    except ValueError:  # tree-sitter's word for "canceled"
        return None


def _first_mismatched_tag(root: Node) -> int | None:
    """Byte offset of the first closing tag, or its name, that differs from its opening tag."""
    offsets = []
    for element in QueryCursor(_elements()).captures(root).get("element", []):
        open_tag, close_tag = (element.child_by_field_name(tag) for tag in ("open_tag", "close_tag"))
        opened, closed = (tag and tag.child_by_field_name("name") for tag in (open_tag, close_tag))
        if close_tag and (opened and opened.text) != (closed and closed.text):
            offsets.append((closed or close_tag).start_byte)
    return min(offsets, default=None)


@functools.lru_cache(maxsize=1024)  # several rewards of a sum ask for the same texts; a log costs 1 us per byte
def _first_failure(source: bytes) -> int:
    """Byte offset of the first token that no reading of `source` can accept.

    tree-sitter's tree does not tell: its ERROR nodes start where the repair starts, for an unclosed tag often
    at 0. Its log does: it follows all readings, and writes "resume" once every one of them has failed.
    """
    steps: list[str] = []
    failed = False

    def follow(kind: object, message: str) -> None:
        nonlocal failed
        if not failed and message.startswith("process "):
            steps.append(message)
        elif message.startswith("resume "):
            failed = True

    def read(offset: int, point: object) -> bytes:
        return source[offset : offset + _CHUNK]

    def is_over(offset: int, has_error: bool) -> bool:
        # Nothing after the error matters, and repairing some texts takes tree-sitter forever.
        return failed

    with contextlib.suppress(ValueError):  # tree-sitter's word for "canceled"
        Parser(tsx(), logger=follow).parse(read, progress_callback=is_over)
    row, column = max((int(match[1]), int(match[2])) for match in map(_POSITION.search, steps) if match)
    before = len(source) - len(source.split(b"\n", row)[-1]) + column
    return len(source) - len(source[before:].lstrip())


@functools.cache
def tsx() -> Language:
    """tree-sitter's TypeScript grammar with JSX."""
    return Language(tree_sitter_typescript.language_tsx())


@functools.cache
def _elements() -> Query:
    # The names are compared in Python: a pattern with fields is quadratic in how deep elements nest.
    return Query(tsx(), "(jsx_element) @element")
