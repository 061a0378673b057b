"""What is on a rendered page: tags, attributes, classes and words, counted."""

import html
import re
from collections import Counter
from dataclasses import dataclass, field

# One pass, possessive quantifiers: linear on any input. Rendered HTML is regular, except for what
# dangerouslySetInnerHTML brings in; a "<" that starts no tag is skipped.
_TOKEN = re.compile(
    r"""<!--(?:(?!-->).)*+(?:-->)?
    |<(?P<close>/)?(?P<tag>[A-Za-z][\w:.-]*+)(?P<attributes>(?:[^<>"']|"[^"]*+"|'[^']*+')*+)>
    |(?P<text>[^<]++)""",
    re.VERBOSE | re.DOTALL,
)
_ATTRIBUTE = re.compile(r"""([^\s"'>/=]++)(?:=(?:"([^"]*+)"|'([^']*+)'|([^\s"'>]++)))?""")
_WORD = re.compile(r"\w+")


@dataclass
class Page:
    """Counts of what an HTML text holds: tag names, (name, value) of attributes, class names, lower-case words."""

    tags: Counter[str] = field(default_factory=Counter)
    attributes: Counter[tuple[str, str]] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)


def read_page(text: str) -> Page:
    """Count what is in `text`, which need not be valid HTML."""
    page = Page()
    for token in _TOKEN.finditer(text):
        if token["text"]:
            page.words.update(_words(token["text"]))
        elif token["tag"] and not token["close"]:
            page.tags[token["tag"].lower()] += 1
            _count_attributes(token["attributes"], page)
    return page


def _count_attributes(source: str, page: Page) -> None:
    for name, *values in _ATTRIBUTE.findall(source):
        value = html.unescape("".join(values))
        if name.lower() == "class":
            page.classes.update(value.split())
        else:
            page.attributes[name.lower(), " ".join(_words(value))] += 1


def _words(source: str) -> list[str]:
    return _WORD.findall(html.unescape(source).lower())
