"""The site of the documentation: what can be held without its tools. Links and the build: scripts/docs.sh."""

import re
from collections.abc import Iterator

import pytest
import yaml
from documents import PAGES, ROOT, text_of

SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def leaves(nav: object) -> Iterator[str]:
    """The pages of a navigation, in order."""
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from leaves(entry)


def test_the_navigation_has_every_page_once():
    assert sorted(leaves(SITE["nav"])) == sorted(page.removeprefix("docs/") for page in PAGES if page != "README.md")


def test_nothing_is_loaded_from_elsewhere():
    """Fonts, and the script that lets the search run on files, which the theme would fetch unless told otherwise."""
    assert SITE["theme"]["font"] is False
    [polyfill] = SITE["extra"]["polyfills"]
    assert "iframe-worker" in polyfill
    assert (ROOT / "docs" / polyfill).is_file()


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/how-to/")])
def test_a_how_to_starts_with_its_command(page):
    """Or with the lines of code or config that do it."""
    assert re.match(r"# .+\n\n```(bash|python|yaml|diff)\n", text_of(page))
