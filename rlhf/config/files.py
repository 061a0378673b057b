"""Config files: YAML that says one thing only, in a size that a person could have written.

YAML's own rules let a file repeat a key (the last one wins in silence), refer to itself, and grow without bounds
through aliases. All of that is refused here, before any value is looked at.
"""

import re
from pathlib import Path
from typing import Any, cast

import yaml

from rlhf.config.checks import LARGEST, require
from rlhf.config.expected import shown
from rlhf.config.secrets import mask_settings
from rlhf.errors import UserError

YAML_TAG = "tag:yaml.org,2002:"
KINDS = ("map", "seq", "str", "int", "float", "bool", "null", "timestamp")
OCTAL = re.compile(r"[-+]?0[0-9_]+")
MAX_DEPTH, MAX_VALUES, MAX_MESSAGE = 40, 100_000, 400


def read_config(file: str) -> dict[str, Any]:
    """The mapping in a config file; raises UserError, in one line, for everything that the docstring above names."""
    try:
        text = Path(file).read_text(encoding="utf-8")
        values = strict_load(text)
    except OSError as error:
        raise UserError(f"cannot read the config {file} ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file}: the config is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{file}: {masked_line(error)}") from error
    require(isinstance(values, dict), f"{file}: a config must be a mapping of keys to values, not {shown(values)}")
    return cast(dict[str, Any], values)


def strict_load(text: str) -> Any:
    """The value of a YAML text, with 1e-5 as a number; raises YAMLError for what the module's docstring names."""
    from jsonargparse import get_loader

    loader = yaml.SafeLoader(text)
    try:
        _check_depth(text)
        node = loader.get_single_node()
        if node is not None:
            _count(node, {})
            _check_node(node, "")
    finally:
        loader.dispose()
    return get_loader("yaml")(text)


def masked_line(error: BaseException) -> str:
    """A parser's message on one line, without values of keys that look like a secret's, and cut where it is long."""
    text = mask_settings(" ".join(str(error).split()))
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}..."


def _check_depth(text: str) -> None:
    """By events, which need no recursion: a text of brackets alone would end the interpreter."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        _require(depth <= MAX_DEPTH, event, f"values are nested more than {MAX_DEPTH} deep")


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Values below a node, aliases spelled out; 0 in `known` marks a node that is being counted."""
    if id(node) in known:
        _require(known[id(node)] > 0, node, "an alias refers to what it is part of")
        return known[id(node)]
    known[id(node)] = 0
    children = node.value if isinstance(node, yaml.SequenceNode | yaml.MappingNode) else []
    parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
    known[id(node)] = 1 + sum(_count(part, known) for part in parts)
    _require(known[id(node)] <= MAX_VALUES, node, f"with its aliases spelled out it has more than {MAX_VALUES} values")
    return known[id(node)]


def _check_node(node: yaml.Node, path: str) -> None:
    """Keys are different strings, numbers have a size that a computer can work with."""
    kind = node.tag.removeprefix(YAML_TAG)
    _require(
        kind in KINDS, node, f"{path} is a {kind}; it must be a text, a number, true, false, null, list or mapping"
    )
    if isinstance(node, yaml.SequenceNode):
        for number, child in enumerate(node.value):
            _check_node(child, f"{path}[{number}]")
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, child in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            where = f"{path}.{name}" if path else name
            is_name = key.tag.endswith(":str") and name and not name.startswith("__") and "\0" not in name
            _require(bool(is_name) or key.tag.endswith(":merge"), key, f"key {where!r} is not the name of an option")
            _require(name not in seen, key, f"key {where!r} is there twice; keep one of them")
            _require(where != "config", key, "key 'config' would read another file; give it on the command line")
            seen.add(name)
            _check_node(child, where)
    else:
        _check_scalar(node, path)


def _check_scalar(node: yaml.Node, path: str) -> None:
    """What YAML takes for something else than it looks like: 010 is 8 to it, 1:30 is 90, and nothing is null."""
    kind = node.tag.removeprefix(YAML_TAG)
    is_empty = kind == "null" and not node.value and bool(path)
    _require(not is_empty, node, f"nothing stands behind {path}; write null, or leave it out")
    if kind == "int":
        too_long = len(node.value) > len(str(LARGEST)) + 20
        _require(not too_long, node, f"{path} is {node.value[:20]}...; it must be at most {LARGEST}")
    plain = kind not in ("int", "float") or (":" not in node.value and not OCTAL.fullmatch(node.value))
    _require(plain, node, f"{path} is {node.value}, a number in YAML's old notation; write it in decimal, or in quotes")
    _require(node.value.lower() != ".nan", node, f"{path} is {node.value}; it must be a number")


def _require(condition: bool, place: Any, message: str) -> None:
    if not condition:
        raise yaml.YAMLError(f"line {place.start_mark.line + 1}: {message}")
