"""README.md and the pages of docs/ as the tests read them: code blocks, commands, headings."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))]
SHELLS = ("bash", "sh", "shell", "console")
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
# What a shell without any program in its reach was asked to run, loops unrolled and variables filled in.
NOTE_COMMANDS = r"""
command_not_found_handle() { printf '%s\0' "$@" >> "$NOTED"; printf '\n' >> "$NOTED"; }
"""


class Block(NamedTuple):
    """A code block: its page, the language behind the backticks, and its text."""

    page: str
    language: str
    text: str


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(*languages: str, page: str | None = None) -> list[Block]:
    """The blocks in these languages, all of them without any, in the order of the pages."""
    found = [Block(name, *fence) for name in PAGES for fence in FENCE.findall(text_of(name)) if page in (None, name)]
    return [block for block in found if not languages or block.language in languages]


def commands(block: Block, folder: Path) -> list[list[str]]:
    """The arguments of every command of a block; bash itself reads the block, in a folder of its own."""
    noted = folder / "noted"
    noted.touch()
    bash = str(shutil.which("bash"))
    environment = {"PATH": "/nowhere", "NOTED": str(noted)}
    subprocess.run(
        [bash, "-c", NOTE_COMMANDS + block.text], env=environment, cwd=folder, capture_output=True, timeout=30
    )
    lines = noted.read_text(encoding="utf-8").split("\0\n")
    noted.unlink()
    return [line.split("\0") for line in lines if line]


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page in links."""
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", prose, re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.append(name if name not in found else f"{name}-{found.count(name)}")
    return set(found)
