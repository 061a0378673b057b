"""The report as one HTML file: no network, no library, and nothing a model says is taken for HTML."""

from importlib.resources import files

from rlhf.report.html import Markup, content_hash, element, join
from rlhf.report.previews import STYLE

SCRIPTS = ("charts.js", "inspector.js")


def document(title: str, body: Markup) -> str:
    """Head, policy and scripts around the body; the policy names what may run or style by its hash."""
    style, scripts = asset("report.css"), [asset(name) for name in SCRIPTS]
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(map(content_hash, scripts))}",
            f"style-src {content_hash(style)} {content_hash(STYLE)}",
            "style-src-attr 'unsafe-inline'",  # React components in their frames have style attributes
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    head = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(style)),
    ]
    ran = [element("script", Markup(script)) for script in scripts]
    return f'<!doctype html>\n<html lang="en">\n<head>{join(head)}</head>\n<body>{body}{join(ran)}</body>\n</html>\n'


def asset(name: str) -> str:
    """The text of one of the files that are written into the page."""
    return files("rlhf.report").joinpath("assets", name).read_text(encoding="utf-8")
