"""MkDocs hook: links from pages to files outside docs/ lead to a highlighted copy of the file inside the site.

So the site needs no network and no address of a repository, and the same links work where the pages are read as files.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound

ROOT = Path(__file__).resolve().parents[2]
DOCS = "docs"
FOLDER = "source"
CODE = re.compile(r"^ *```.*?^ *```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?P<head>\]\()(?P<path>[^)\s#:]+)(?P<place>#[^)\s]*)?\)")


def outside(page: str, link: str) -> str | None:
    """The path from the root of the repository where a link of a page leaves docs/; None where it does not."""
    target = posixpath.normpath(posixpath.join(DOCS, posixpath.dirname(page), link))
    return None if target.startswith(f"{DOCS}/") else target


def copy_of(target: str) -> str:
    """Where the copy of a file is; MkDocs leaves out what begins with a dot."""
    return f"{FOLDER}/{target.removeprefix('.')}.html"


def on_files(files: Files, config: Any) -> Files:
    """Add a page for every file outside docs/ that some page links to."""
    pages = [file for file in files if file.is_documentation_page()]
    targets = {
        target
        for page in pages
        for link in LINK.finditer(CODE.sub("", page.content_string))
        if (target := outside(page.src_uri, link["path"])) is not None and (ROOT / target).exists()
    }
    for target in sorted(targets):
        files.append(File.generated(config, copy_of(target), content=as_html(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point those links at the copies; `#L10-L20` becomes the first of the lines."""

    def replaced(link: re.Match[str]) -> str:
        target = outside(page.file.src_uri, link["path"])
        if target is None:
            return link[0]
        place = re.sub(r"^#L(\d+).*", r"#L-\1", link["place"] or "")
        here = posixpath.dirname(page.file.src_uri)
        return f"{link['head']}{posixpath.relpath(copy_of(target), here)}{place})"

    spared = [range(*match.span()) for match in CODE.finditer(markdown)]
    return LINK.sub(lambda link: link[0] if any(link.start() in code for code in spared) else replaced(link), markdown)


def as_html(path: Path) -> str:
    """A file with line numbers, or the names in a folder."""
    name = str(path.relative_to(ROOT))
    if path.is_dir():
        text, lexer = "\n".join(sorted(entry.name for entry in path.iterdir())), TextLexer()
    else:
        text = path.read_text(encoding="utf-8")
        try:
            lexer = get_lexer_for_filename(path.name)
        except ClassNotFound:
            lexer = TextLexer()
    return str(highlight(text, lexer, HtmlFormatter(full=True, title=name, linenos="inline", lineanchors="L")))
