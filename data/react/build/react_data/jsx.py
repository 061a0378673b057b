"""Lay out flat JSX: break what does not fit, indent by two spaces, keep running text together."""

from functools import cache

import tree_sitter_typescript
from tree_sitter import Language, Node, Parser

ELEMENTS = ("jsx_element", "jsx_self_closing_element")
TEXT = ("jsx_text", "html_character_reference")


@cache
def parser() -> Parser:
    """The TSX parser, made once."""
    return Parser(Language(tree_sitter_typescript.language_tsx()))


def parses(source: str) -> bool:
    """True if `source` is TSX without an ERROR or MISSING node."""
    return not parser().parse(source.encode()).root_node.has_error


def lay_out(source: str, indent: int, width: int, loose: bool) -> str:
    """Format one flat JSX element whose first line starts at column `indent`.

    What fits into `width` stays on one line, except that `loose` layout gives siblings a line each.
    The first line comes back without its indentation.
    """
    node = parser().parse(source.encode()).root_node.named_children[0].named_children[0]
    if node.type not in ELEMENTS or node.has_error:
        raise ValueError(f"not one JSX element: {source!r}")
    return _render(node, indent, width, loose)


def _text(node: Node) -> str:
    return (node.text or b"").decode()


def _render(node: Node, indent: int, width: int, loose: bool) -> str:
    flat = _text(node)
    if indent + len(flat) <= width and not (loose and _crowded(node)):
        return flat
    if node.type == "jsx_self_closing_element":
        return _tag(node, indent, width, "/>")
    if node.type == "jsx_element":
        return _element(node, indent, width, loose)
    if node.type == "jsx_expression":
        return _expression(node, indent, width, loose)
    return flat


def _crowded(node: Node) -> bool:
    """True if elements stand side by side somewhere inside `node`, without text between them."""
    inner = _inner(node) if node.type == "jsx_element" else node.named_children
    solid = [child for child in inner if child.type not in TEXT]
    side_by_side = node.type == "jsx_element" and len(solid) > 1 and len(solid) == len(inner)
    return side_by_side or any(_crowded(child) for child in solid if child.type != "jsx_attribute")


def _inner(node: Node) -> list[Node]:
    return [
        child
        for child in node.named_children
        if ("opening" not in child.type and "closing_" not in child.type) or child.type == "jsx_self_closing_element"
    ]


def _tag(node: Node, indent: int, width: int, end: str) -> str:
    flat = _text(node)
    if indent + len(flat) <= width:
        return flat
    name = node.child_by_field_name("name")
    attributes = [_text(child) for child in node.named_children if child != name]
    if name is None or not attributes:
        return flat
    lines = [f"<{_text(name)}", *(" " * (indent + 2) + attribute for attribute in attributes), " " * indent + end]
    return "\n".join(lines)


def _element(node: Node, indent: int, width: int, loose: bool) -> str:
    opening, closing = node.named_children[0], node.named_children[-1]
    inner = _inner(node)
    pad = " " * (indent + 2)
    running = "".join(_text(child) for child in inner).strip()
    texts = [child for child in inner if child.type in TEXT]
    if texts and (indent + 2 + len(running) <= width or not any(_outermost_elements(child) for child in inner)):
        lines = [pad + running]
    elif texts:
        rendered = (_render(child, indent + 2, width, loose).strip() for child in inner)
        lines = [pad + line for line in rendered if line]
    else:
        lines = [pad + _render(child, indent + 2, width, loose) for child in inner]
    if not lines:
        return _tag(opening, indent, width, ">") + _text(closing)
    return "\n".join([_tag(opening, indent, width, ">"), *lines, " " * indent + _text(closing)])


def _outermost_elements(node: Node) -> list[Node]:
    if node.type in ELEMENTS:
        return [node]
    return [found for child in node.named_children for found in _outermost_elements(child)]


def _expression(node: Node, indent: int, width: int, loose: bool) -> str:
    """Put each JSX element inside an expression into parentheses on lines of its own."""
    source, start, parts = node.text or b"", node.start_byte, []
    last = 0
    for element in _outermost_elements(node):
        parts.append(source[last : element.start_byte - start].decode())
        body = _render(element, indent + 2, width, loose)
        parts.append("(\n" + " " * (indent + 2) + body + "\n" + " " * indent + ")")
        last = element.end_byte - start
    return "".join(parts) + source[last:].decode()
