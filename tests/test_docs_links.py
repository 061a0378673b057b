"""The pages of the documentation hang together: an index with all of them, and no link that leads nowhere."""

import re

import pytest
from documents import FENCE, PAGES, ROOT, anchors, text_of

INDEX = "docs/README.md"
LINK = re.compile(r"\]\(([^)\s]+)\)")
FILES = re.compile(r"(?<![\w/.-])(?:scripts|benchmarks|tests|configs|data|rlhf|docs)/[\w./*{},-]*\w")
NAMED = re.compile(r"`([^`\n]+)`")


def relative_links(page: str) -> list[str]:
    """Links to files and headings, those of pictures included; none from code."""
    prose = NAMED.sub("", FENCE.sub("", text_of(page)))
    return [link for link in LINK.findall(prose) if not re.match(r"\w+:", link)]


def wrong(page: str, link: str) -> str | None:
    """What is wrong with a link; None if it leads somewhere."""
    path, _, place = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    if not target.exists():
        return "no such file"
    if lines := re.fullmatch(r"L(\d+)(?:-L(\d+))?", place):
        first, last = int(lines[1]), int(lines[2] or lines[1])
        text = target.read_text(encoding="utf-8").splitlines()
        return None if 1 <= first <= last <= len(text) and text[first - 1].strip() else "no such line"
    if place:
        return None if place in anchors(target) else "no such heading"
    return None


@pytest.mark.parametrize("page", [*PAGES, "data/react/README.md"])
def test_every_link_leads_somewhere(page):
    assert {link: reason for link in relative_links(page) if (reason := wrong(page, link))} == {}


def test_links_that_lead_nowhere_are_found():
    assert wrong("README.md", "docs/guide/report.md#token-by-token") is None
    assert wrong("docs/guide/report.md", "#token-by-token") is None
    assert wrong("docs/reference/maths.md", "../../rlhf/maths/losses.py#L1-L2") is None
    assert wrong("docs/reference/maths.md", "rlhf/maths/losses.py") == "no such file"
    assert wrong("README.md", "docs/guide/report.md#token-by-tokens") == "no such heading"
    assert wrong("README.md", "rlhf/maths/losses.py#L1-L100000") == "no such line"
    assert len(relative_links("README.md")) > 15


def test_the_index_names_every_page_once_and_each_in_a_line():
    entries = [line for line in text_of(INDEX).splitlines() if line.startswith("- [")]
    linked = [link for line in entries for link in LINK.findall(line)]
    assert sorted(linked) == sorted(
        page.removeprefix("docs/") for page in PAGES if page.startswith("docs/") and page != INDEX
    )
    assert len(entries) == len(linked)
    assert INDEX in relative_links("README.md")


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_are_there(page):
    """Paths in code and in prose; braces and stars as a shell reads them."""
    named = {name for code in NAMED.findall(text_of(page)) for name in FILES.findall(code)}
    assert sorted(name for name in named if not any(map(list, map(ROOT.glob, spelled_out(name))))) == []


def spelled_out(path: str) -> list[str]:
    """`a{b,c}` as `ab`, `ac`."""
    braces = re.search(r"\{([^}]*)\}", path)
    if not braces:
        return [path]
    return [path.replace(braces[0], option, 1) for option in braces[1].split(",")]


def test_pages_that_the_code_names_are_there():
    """In messages and docstrings."""
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "rlhf").rglob("*.py"))
    named = set(re.findall(r"(?<![\w/])docs/[\w/-]+\.md", code))
    assert len(named) >= 4
    assert [name for name in named if not (ROOT / name).is_file()] == []
