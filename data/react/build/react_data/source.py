"""From the parts of a component to its source text, in one of several house styles."""

import re
from dataclasses import dataclass
from random import Random

from react_data.jsx import lay_out

EXPORTS = ("default", "default after", "arrow", "named", "named arrow")
TYPINGS = ("none", "inline", "type", "interface")
VALUES = ("createContext", "useCallback", "useContext", "useEffect", "useId", "useMemo", "useReducer", "useRef",
          "useState", "memo", "Fragment")  # fmt: skip
TYPES = ("ChangeEvent", "FormEvent", "KeyboardEvent", "ReactNode")


@dataclass(frozen=True)
class Style:
    """How a component is laid out and exported."""

    export: str
    typing: str
    width: int
    loose: bool
    implicit_return: bool

    @classmethod
    def draw(cls, rng: Random, short: bool) -> "Style":
        """A style at random; short components carry no separate props type."""
        return cls(
            export=rng.choices(EXPORTS, (50, 17, 14, 11, 8))[0],
            typing=rng.choices(TYPINGS, (84, 16, 0, 0) if short else (45, 15, 25, 15))[0],
            width=rng.choices((72, 80, 100), (25, 55, 20))[0],
            loose=rng.random() < 0.8,
            implicit_return=rng.random() < 0.2,
        )


def component(style: Style, name: str, view: str, props: str, body: str, before: str) -> str:
    """The whole file: imports, what comes before, the props type, the component, its export."""
    fields = [re.fullmatch(r"\s*(\w+): (.+?) = (.+)", prop, re.DOTALL) for prop in props.split("; ") if prop]
    triples = [(field[1], field[2], field[3]) for field in fields if field]
    if len(triples) != len(fields):
        raise ValueError(f"props of {name} are not `name: type = default; ...`: {props!r}")
    declaration, annotation = _props_type(style, name, triples)
    code = _define(style, name, _signature(triples, annotation, max(style.width, 80) - len(name)), body, view)
    parts = [before, declaration, code]
    imports = _imports("\n".join(parts))
    return "\n\n".join(part for part in (imports, *parts) if part)


def _imports(code: str) -> str:
    names = [name for name in VALUES if re.search(rf"(?<![\w.]){name}\b", code)]
    names += [f"type {name}" for name in TYPES if re.search(rf"(?<![\w.]){name}\b", code)]
    return f'import {{ {", ".join(names)} }} from "react";' if names else ""


def _props_type(style: Style, name: str, fields: list[tuple[str, str, str]]) -> tuple[str, str]:
    """The declaration of the props type, if it stands on its own, and the annotation of the parameter."""
    if not fields or style.typing == "none":
        return "", ""
    members = [f"{field}?: {kind};" for field, kind, _ in fields]
    if style.typing == "inline":
        return "", ": { " + " ".join(members).rstrip(";") + " }"
    block = "{\n" + "".join(f"  {member}\n" for member in members) + "}"
    if style.typing == "interface":
        return f"interface {name}Props {block}", f": {name}Props"
    return f"type Props = {block};", ": Props"


def _signature(fields: list[tuple[str, str, str]], annotation: str, room: int) -> str:
    if not fields:
        return "()"
    defaults = [f"{field} = {default}" for field, _, default in fields]
    flat = f"({{ {', '.join(defaults)} }}{annotation})"
    if len(flat) + len("export default function  {") <= room and "\n" not in flat:
        return flat
    return "({\n" + "".join(f"  {default},\n" for default in defaults) + f"}}{annotation})"


def _define(style: Style, name: str, signature: str, body: str, view: str) -> str:
    arrow = style.export in ("arrow", "named arrow")
    if arrow and style.implicit_return and not body:
        content = f"(\n  {lay_out(view, 2, style.width, style.loose)}\n);"
    else:
        content = "{\n" + _block(style, body, view) + "}" + (";" if arrow else "")
    head = f"const {name} = {signature} => " if arrow else f"function {name}{signature} "
    prefix = {"default": "export default ", "named": "export ", "named arrow": "export "}.get(style.export, "")
    suffix = f"\n\nexport default {name};" if style.export in ("default after", "arrow") else ""
    return prefix + head + content + suffix


def _block(style: Style, body: str, view: str) -> str:
    statements = "".join(f"  {line}\n" if line else "\n" for line in body.split("\n")) if body else ""
    gap = "\n" if body.count("\n") > 0 and style.loose else ""
    one_line = lay_out(view, 10, style.width, style.loose)
    if "\n" not in one_line:
        return f"{statements}{gap}  return {one_line};\n"
    return f"{statements}{gap}  return (\n    {lay_out(view, 4, style.width, style.loose)}\n  );\n"
