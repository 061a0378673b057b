"""Finding the code in a completion: models often wrap it in a Markdown fence and talk around it."""

import re

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+-]*)[^`\n]*$", re.MULTILINE)
_REACT_LANGUAGES = {"tsx", "jsx", "typescript", "javascript", "ts", "js", "react", "typescriptreact", "javascriptreact"}


def code_of(completion: str) -> str:
    """The code in `completion`: `code_range` says which part that is."""
    start, end = code_range(completion)
    return completion[start:end]


def code_range(completion: str) -> tuple[int, int]:
    """Where the code stands, as character offsets (start, end).

    Without a fence, the whole text. Else the first block that is marked as TSX, JSX, TypeScript or JavaScript, else the
    first without a mark, or the first block if all are of other languages. Fences are of three or more backticks or
    tildes, and closed by as many or more. A fence that is never closed runs to the end of the text. A lone unmarked
    fence at the very end closes one that the prompt opened: the code is what comes before it.
    """
    fences = list(_FENCE.finditer(completion))
    if not fences:
        return 0, len(completion)
    if len(fences) == 1 and not fences[0][2] and not completion[fences[0].end() :].strip():
        return 0, fences[0].start()
    blocks = _blocks(fences, len(completion))
    start, end, _ = min(blocks, key=lambda block: (block[2] not in _REACT_LANGUAGES, block[2] != ""))
    return start, end


def _blocks(fences: list[re.Match[str]], length: int) -> list[tuple[int, int, str]]:
    """(start, end, language) of each block; a fence with a language opens, and closes none."""
    blocks: list[tuple[int, int, str]] = []
    opening: re.Match[str] | None = None
    for fence in fences:
        if opening is None:
            opening = fence
        elif not fence[2] and fence[1].startswith(opening[1]):
            blocks.append((min(opening.end() + 1, length), fence.start(), opening[2].lower()))
            opening = None
    if opening is not None:
        blocks.append((min(opening.end() + 1, length), length, opening[2].lower()))
    return blocks
