"""Rewards a component that renders what the reference renders."""

import functools
import logging
from collections import Counter
from typing import Any

from rlhf.rewards.react.render.html import Page
from rlhf.rewards.react.render.pool import Rendered
from rlhf.rewards.react.renders import Renders, describe_rendering, page_of

# Words and tags say what a page is; attributes and class names are more a matter of taste.
WEIGHTS = {"tags": 0.3, "attributes": 0.2, "classes": 0.1, "words": 0.4}
_log = logging.getLogger(__name__)


class ReactMatch(Renders):
    """`sum(weight * F1) / sum(weight)` over tags (.3), attributes (.2), classes (.1) and words (.4) of the HTML.

    `F1 = 2 |A & B| / (|A| + |B|)` on the counts of what completion and reference render to (multisets); kinds
    that neither has are left out. 0 if the completion does not render. Where the reference is None or does not
    render, the reward does not apply; the latter is logged as a warning. Fooled by little: the words of the
    prompt in plain paragraphs earn a part of the words.
    """

    def __call__(
        self, prompts: list[str], completions: list[str], reference: list[str | None], **columns: list[Any]
    ) -> list[float | None]:
        rendered = self.render(completions)
        return [
            None if wanted is None else match_score(page_of(got), wanted)
            for got, wanted in zip(rendered, self.reference_pages(reference), strict=True)
        ]

    def explain(self, prompt: str, completion: str, *, reference: str | None, **columns: Any) -> str:
        rendered, (wanted,) = self.render_to_explain(completion), self.reference_pages([reference])
        if wanted is None:
            return "does not apply: there is no reference that renders"
        return describe_match(rendered, wanted)

    def reference_pages(self, references: list[str | None]) -> list[Page | None]:
        """The page of each reference, None where there is none or it does not render."""
        given = [text for text in references if text is not None]
        pages = {text: page_of(rendered) for text, rendered in zip(given, self.render(given), strict=True)}
        for text, page in pages.items():
            if page is None:
                _warn_once(text)
        return [None if text is None else pages[text] for text in references]


@functools.lru_cache(maxsize=1024)
def _warn_once(reference: str) -> None:
    _log.warning("a reference does not render, so that react_match does not apply: %r", reference[:200])


def match_score(page: Page | None, wanted: Page) -> float:
    """The formula of `ReactMatch`: weighted F1, in [0, 1]."""
    parts = match_parts(page, wanted)
    total = sum(WEIGHTS[kind] for kind in parts)
    return sum(WEIGHTS[kind] * f1 for kind, f1 in parts.items()) / total if total else float(page is not None)


def match_parts(page: Page | None, wanted: Page) -> dict[str, float]:
    """F1 by kind, without the kinds that neither page has."""
    parts = {kind: _f1(getattr(page or Page(), kind), getattr(wanted, kind)) for kind in WEIGHTS}
    return {kind: f1 for kind, f1 in parts.items() if f1 is not None}


def _f1(found: Counter[Any], wanted: Counter[Any]) -> float | None:
    size = found.total() + wanted.total()
    return 2 * (found & wanted).total() / size if size else None


def describe_match(rendered: Rendered, wanted: Page) -> str:
    """What was rendered and, for each kind, the F1 with the first few things that are missing or too much."""
    page = page_of(rendered)
    lines = [describe_rendering(rendered, page)]
    for kind, f1 in match_parts(page, wanted).items():
        found, expected = getattr(page or Page(), kind), getattr(wanted, kind)
        missing, extra = _some(expected - found), _some(found - expected)
        lines.append(
            f"{kind} F1 {f1:.2f}" + (f", missing {missing}" if missing else "") + (f", extra {extra}" if extra else "")
        )
    return "\n".join(lines)


def _some(counts: Counter[Any]) -> str:
    names = [key if isinstance(key, str) else "=".join(key) for key in counts]
    return " ".join(names[:5]) + (" ..." if len(names) > 5 else "")
