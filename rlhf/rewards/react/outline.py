"""The outline of a React module: its components, exports, hook calls and lists."""

import functools
import re

from tree_sitter import Node

from rlhf.rewards.react.pieces import Piece, nest

_WORD = re.compile(r"[A-Za-z_$][\w$]*")
_WRAPPER = re.compile(r"(^|\.)(memo|forwardRef|observer|with[A-Z]\w*)$")
_HOOK = re.compile(r"(^|\.)use[A-Z0-9]\w*$")
_LIST_CALL = re.compile(r"(^Array\.from|(?<!\bChildren)\.(map|flatMap))$")
_COMPONENT_CLASS = re.compile(r"extends\s+(React\.)?(Pure)?Component\b")


class Outline:
    """The pieces of a module, and the questions that a reward asks about them."""

    def __init__(self, root: Node) -> None:
        self.pieces = nest(root)

    def of_kind(self, kind: str) -> list[Piece]:
        return [piece for piece in self.pieces if piece.kind == kind]

    @functools.cached_property
    def components(self) -> list[Piece]:
        """Functions with a capitalized name, or anonymous default exports, that hold JSX and return something;
        and classes that extend Component and hold JSX."""
        return [piece for piece in self.pieces if _is_component(piece)]

    def exports_a_component(self) -> bool:
        """True if a component is exported: in place, by name, or by the name of its wrapped form."""
        names: set[str] = set()
        for export in self.of_kind("export"):
            if not export.holds("function", "class"):
                names.update(_WORD.findall(export.text))
        for binding in self.of_kind("binding"):  # const Fast = memo(Slow); export default Fast
            if binding.field_text("name") in names and not binding.holds("function", "class"):
                names.update(_WORD.findall(binding.field_text("value")))
        return any(name_of(component) in names or _export_of(component) for component in self.components)

    def misplaced_hooks(self) -> list[Piece]:
        """Hook calls outside a component or hook, in a branch, loop, callback or `try`, or after a return."""
        return [
            call
            for call in self.of_kind("call")
            if _HOOK.search(call.field_text("function")) and not self._hook_is_well_placed(call)
        ]

    def _hook_is_well_placed(self, call: Piece) -> bool:
        owner = call.nearest("function", "branch")
        if owner is None or owner.kind == "branch":
            return False
        name = name_of(owner)
        if not (name[:1].isupper() or re.match("use[A-Z0-9]", name) or (not name and _export_of(owner))):
            return False
        return not any(
            leave.node.end_byte <= call.node.start_byte and leave.nearest("function") is owner
            for leave in self.of_kind("return")
        )

    def elements_without_key(self) -> list[Piece]:
        """Elements that a callback of `map`, `flatMap` or `Array.from` returns without a `key`."""
        return [jsx for jsx in self.of_kind("jsx") if _is_list_item(jsx) and not _has_key(jsx.node)]


def name_of(piece: Piece) -> str:
    """The name a function or class goes by: of its variable, through `memo` and the like, or its own.

    Empty if it has none, or if it is wrapped and so can be reached by its own name no longer.
    """
    around = _unwrapped_parent(piece)
    if around and around.kind == "binding":
        return around.field_text("name")
    return piece.field_text("name") if around is piece.parent else ""


def _is_component(piece: Piece) -> bool:
    if piece.kind == "class":
        return bool(_COMPONENT_CLASS.search(piece.text[:200])) and piece.holds("jsx")
    if piece.kind != "function" or piece.node.type == "method_definition":
        return False
    name = name_of(piece)
    return (name[:1].isupper() or (not name and _export_of(piece) is not None)) and (
        piece.holds("jsx") and _returns(piece)
    )


def _returns(function: Piece) -> bool:
    if not _has_block_body(function):
        return True
    pending = list(function.children)
    while pending:
        piece = pending.pop()
        if piece.kind == "return":
            return True
        if piece.kind != "function":  # its returns are its own
            pending += piece.children
    return False


def _has_block_body(function: Piece) -> bool:
    body = function.node.child_by_field_name("body")
    return body is not None and body.type == "statement_block"


def _unwrapped_parent(piece: Piece) -> Piece | None:
    """The piece around `piece`, looking through calls of `memo`, `forwardRef` and the like."""
    around = piece.parent
    while around and around.kind == "call" and _WRAPPER.search(around.field_text("function")):
        around = around.parent
    return around


def _export_of(piece: Piece) -> Piece | None:
    around = _unwrapped_parent(piece)
    if around and around.kind == "binding":
        around = around.parent
    return around if around and around.kind == "export" else None


def _is_list_item(jsx: Piece) -> bool:
    around = jsx.nearest("function", "jsx", "return")
    function = jsx.nearest("function")
    if not around or around.kind == "jsx" or not function:
        return False
    if around.kind == "function" and _has_block_body(function):
        return False  # kept in a variable or passed on: may well be a part of an element that has a key
    call = function.parent
    return bool(call and call.kind == "call" and _LIST_CALL.search(call.field_text("function")))


def _has_key(element: Node) -> bool:
    tag = element.child_by_field_name("open_tag") or element
    attributes = [child for child in tag.named_children if child.type == "jsx_attribute"]
    return any(name.text == b"key" for attribute in attributes for name in attribute.named_children[:1])
