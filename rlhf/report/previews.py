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
_ASKS_FOR_MORE = re.compile(r"<(?=/?(?:meta|link|base|iframe|object|embed)\b)", re.IGNORECASE)
_SOURCE = re.compile(r"""(?<=[\s"'/])(src|srcset|poster|background|data)(?=\s*=)""", re.IGNORECASE)


def rewards_react(config: Row) -> bool:
    """Whether any reward of this config is about React components."""
    if isinstance(config, dict):
        return str(config.get("path", "")).startswith("react_") or any(map(rewards_react, config.values()))
    return isinstance(config, list) and any(map(rewards_react, config))


def render_previews(responses: list[str]) -> dict[str, Markup]:
    """Response -> a frame that shows it, or a line that says why not; empty where rendering is not set up."""
    from rlhf.rewards.react.render.installation import RenderUnavailableError
    from rlhf.rewards.react.renders import ReactRender

    try:
        rendered = ReactRender(time_limit=SECONDS, workers=1).render(responses)
    except RenderUnavailableError:
        return {}
    return {text: preview(result) for text, result in zip(responses, rendered, strict=True)}


def preview(rendered: "Rendered") -> Markup:
    """What became of one component."""
    if rendered.html is None:
        return element("p", f"Does not render: {rendered.error}", class_="unit")
    if not rendered.html.strip():
        return element("p", "Renders nothing.", class_="unit")
    if len(rendered.html) > LONGEST_HTML:
        return element("p", f"Renders {len(rendered.html)} characters of HTML, too many to show.", class_="unit")
    return join([element("p", "Rendered:", class_="unit"), frame(rendered.html)])


def frame(html: str) -> Markup:
    """HTML in a frame without scripts, forms, navigation, network, or anything of the page around it.

    The sandbox and the page's Content-Security-Policy, which the frame inherits, see to that. What asks for files
    that are not there is taken out besides, so that the browser has nothing to complain of.
    """
    harmless = _SOURCE.sub(r"data-\1", _ASKS_FOR_MORE.sub("&lt;", html))
    document = f"<!doctype html><style>{STYLE}</style>{harmless}"
    return element("iframe", sandbox="", srcdoc=document, loading="lazy", title="rendered component", tabindex="-1",
                   referrerpolicy="no-referrer", class_="preview")  # fmt: skip
