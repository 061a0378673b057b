"""What React components look like: rendered to HTML at report time, shown in frames that can do nothing."""

import re
from typing import TYPE_CHECKING

from rlhf.report.html import Markup, element, join
from rlhf.report.load import Row

if TYPE_CHECKING:
    from rlhf.rewards.react.render.pool import Rendered

LONGEST_HTML = 20_000
SECONDS = 1.0
STYLE = (
    "body{margin:10px;font:14px/1.45 system-ui,sans-serif;color:#1a1f26;background:#fff;overflow-wrap:anywhere}"
    "img{display:inline-block;min-width:32px;min-height:24px;border:1px dashed #8a94a0}"  # its file is not there
    "table{border-collapse:collapse}td,th{border:1px solid #cdd5df;padding:2px 6px}"
)
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_ASKS_FOR_MORE = re.compile(r"<(?=/?(?:meta|link|base|iframe|object|embed)\b)", re.IGNORECASE)
_SOURCE = re.compile(r"""(?<=[\s"'/])(src|srcset|poster|background|data)(?=\s*=)""", re.IGNORECASE)


def rewards_react(config: Row) -> bool:
    """Whether any reward of this config is about React components."""
    if isinstance(config, dict):
        return str(config.get("path", "")).startswith("react_") or any(map(rewards_react, config.values()))
    return isinstance(config, list) and any(map(rewards_react, config))


def rendered(responses: list[str]) -> "dict[str, Rendered]":
    """Response -> what became of its component; empty where rendering is not set up."""
    from rlhf.rewards.react.render.installation import RenderUnavailableError
    from rlhf.rewards.react.renders import ReactRender

    try:
        pages = ReactRender(time_limit=SECONDS, workers=1).render(responses)
    except RenderUnavailableError:
        return {}
    return dict(zip(responses, pages, strict=True))


def render_previews(responses: list[str]) -> dict[str, Markup]:
    """Response -> a frame that shows it, or a line that says why not; empty where rendering is not set up."""
    return {text: preview(result) for text, result in rendered(responses).items()}


def in_words(result: "Rendered") -> str:
    """What became of one component, for a terminal: its HTML, or why there is none."""
    return f"renders: {result.html}" if result.html else f"does not render: {result.error or 'the page is empty'}"


def preview(result: "Rendered") -> Markup:
    """What became of one component."""
    if result.html is None:
        return element("p", f"Does not render: {result.error}", class_="unit")
    if not result.html.strip():
        return element("p", "Renders nothing.", class_="unit")
    if len(result.html) > LONGEST_HTML:
        return element("p", f"Renders {len(result.html)} characters of HTML, too many to show.", class_="unit")
    return join([element("p", "Rendered:", class_="unit"), frame(result.html)])


def frame(html: str) -> Markup:
    """HTML in a frame without scripts, forms, navigation, network, or anything of the page around it.

    The sandbox and the frame's Content-Security-Policy see to that, on top of the policy of the report, if it is one
    that shows it. What asks for files that are not there is taken out besides, so that the browser has nothing to
    complain of.
    """
    harmless = _SOURCE.sub(r"data-\1", _ASKS_FOR_MORE.sub("&lt;", html))
    policy = element("meta", http_equiv="Content-Security-Policy", content=POLICY)
    document = f"<!doctype html>{policy}<style>{STYLE}</style>{harmless}"
    return element("iframe", sandbox="", srcdoc=document, loading="lazy", title="rendered component", tabindex="-1",
                   referrerpolicy="no-referrer", class_="preview")  # fmt: skip
