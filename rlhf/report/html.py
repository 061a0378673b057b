"""HTML from Python: whatever was not made by `element` is text, and text is escaped."""

import base64
import hashlib
import html
import json
import math
from typing import Any

from rlhf.errors import visible

VOID = {"br", "img", "input", "link", "meta"}


class Markup(str):
    """Finished HTML."""

    __slots__ = ()


def escape(text: str) -> Markup:
    """Text as HTML that shows it, also within an attribute; Markup is left as it is."""
    return text if isinstance(text, Markup) else Markup(html.escape(visible(text)))


def element(name: str, /, *children: str | None, **attributes: str | bool | None) -> Markup:
    """`<name attributes>children</name>`; an underscore at the end of an attribute's name goes, others become dashes.

    An attribute that is None or False is left out, as is a child that is None.
    """
    written = [
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    ]
    opening = f"<{name}{''.join(written)}>"
    if name in VOID:
        return Markup(opening)
    return Markup(f"{opening}{join(children)}</{name}>")


def join(children: Any) -> Markup:
    """Children one after the other."""
    return Markup("".join(escape(child) for child in children if child is not None))


def json_block(identifier: str, data: Any) -> Markup:
    """Data for scripts; no character in it can end the block, and NaN becomes null."""
    text = json.dumps(without_nan(data), separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(f'<script type="application/json" id="{escape(identifier)}">{text}</script>')


def without_nan(data: Any) -> Any:
    """A copy in which every float that JSON cannot hold is None."""
    if isinstance(data, dict):
        return {key: without_nan(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [without_nan(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def content_hash(text: str) -> str:
    """How a Content-Security-Policy names one inline script or style sheet."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
