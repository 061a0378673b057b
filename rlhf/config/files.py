"""Config files: YAML that says one thing only, in a size that a person could have written.

YAML's own rules let a file repeat a key (the last one wins in silence), refer to itself, and grow without bounds
through aliases. All of that is refused here, before any value is looked at.
"""

import dataclasses
import re
import typing
from pathlib import Path
from typing import Any

import yaml

from rlhf.config.checks import LARGEST, require
from rlhf.config.renamed import renamed, section_of
from rlhf.config.rewards import BUILTINS, RewardSpec
from rlhf.errors import UserError

MODE = "strict_yaml"
MAX_DEPTH, MAX_VALUES, MAX_MESSAGE = 40, 100_000, 400
MARKS_OF_A_RUN = ("versions.json", "done.json", "policy.json", "metrics.jsonl")
SECRET_VALUE = re.compile(
    r"(\w*(?:token|secret|password|api_?key|access_?key|private_?key|credentials?|authorization)['\"]?\s*[:=]\s*)"
    r"('[^']*'|\"[^\"]*\"|[^\s,}\]]+)",
    re.IGNORECASE,
)


SECTION_OR_NULL = re.compile(
    r"(?:- Expected a path but .* )?(?:- )?Does not validate against any of the Union subtypes .*? Errors: - "
    r"(?:Problem with given class_path '[^']*': )?(?:Parser key \"(?P<key>[^\"]*)\": )?(?P<reason>.*?)"
    r" - Expected a <class 'NoneType'>.*"
)
"""What the parser says of a value in a section that may be null; only key and reason are news."""


def strict_parser_mode(config_class: type) -> str:
    """The name under which jsonargparse finds `strict_load`, with the present names of the settings of a class."""
    import jsonargparse

    def load(text: str) -> Any:
        value = strict_load(text)
        if not isinstance(value, dict):
            return value
        value = renamed(config_class, value)
        _check_no_names_of_classes(config_class, value)
        return value

    jsonargparse.set_loader(MODE, load, exceptions=(yaml.YAMLError,))
    return MODE


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


def check_sections(config_class: type, values: Any, path: str = "") -> None:
    """Raise UserError for a value that stands where a section, a mapping of keys, belongs."""
    for name, hint in typing.get_type_hints(config_class).items():
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            section = values.get(name)
            require(hasattr(section, "as_dict"), f"{path}{name} is {section!r}; it must be a mapping of keys to values")
            check_sections(hint, section, f"{path}{name}.")


def require_own_code(config: Any, files: list[str]) -> None:
    """Raise UserError where a config that came with a run names code: rewards of its own, trust in a model's code.

    Such a file may be somebody else's. Who has read it copies it out of the run's folder.
    """
    foreign = next((file for file in files if came_with_a_run(Path(file))), None)
    named = next(code_named_in(config), None) if foreign else None
    require(
        named is None,
        f"{foreign} lies in the folder of a run and asks for {named}, which would run code that came with it; "
        "read it, and copy it to a file of your own elsewhere if you trust it",
    )


def came_with_a_run(file: Path) -> bool:
    """Whether a config lies beside what a run or a checkpoint consists of."""
    return any((folder / mark).is_file() for folder in file.resolve().parents[:2] for mark in MARKS_OF_A_RUN)


def code_named_in(config: Any) -> typing.Iterator[str]:
    """What in a config leads to code that is not ours, in words."""
    if isinstance(config, RewardSpec):
        if config.path not in BUILTINS or config.args.get("trust_remote_code"):
            yield f"the reward {config.path!r}"
    elif isinstance(config, list):
        for item in config:
            yield from code_named_in(item)
    elif dataclasses.is_dataclass(config):
        if getattr(config, "trust_remote_code", False):
            yield "model.trust_remote_code"
        for field in dataclasses.fields(config):
            yield from code_named_in(getattr(config, field.name))


def one_line(error: BaseException) -> str:
    """A parser's message on one line, without values of keys that look like a secret's, and cut where it is long."""
    text = SECTION_OR_NULL.sub(_reason, " ".join(str(error).split()))
    text = SECRET_VALUE.sub(r"\1***", text)
    text = text.replace("Unexpected config:", "a config must be a mapping of keys to values, not").strip()
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}..."


def _reason(found: re.Match[str]) -> str:
    key = f"{found['key']}: " if found["key"] else ""
    return key + found["reason"]


def _check_depth(text: str) -> None:
    """By events, which need no recursion: a text of brackets alone would end the interpreter."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        _require(depth <= MAX_DEPTH, event, f"values are nested more than {MAX_DEPTH} deep")


def _check_no_names_of_classes(config_class: type, values: dict[str, Any], path: str = "") -> None:
    """A string in place of a section that may be null would be taken for the name of a class, and imported."""
    for name, value in values.items():
        section = section_of(config_class, name)
        if section is not None and isinstance(value, str):
            raise yaml.YAMLError(f"{path}{name} is {value!r}; it must be a mapping of keys to values")
        if section is not None and isinstance(value, dict):
            _check_no_names_of_classes(section, value, f"{path}{name}.")


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
    if isinstance(node, yaml.SequenceNode):
        for number, child in enumerate(node.value):
            _check_node(child, f"{path}[{number}]")
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, child in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            where = f"{path}.{name}" if path else name
            is_name = key.tag.endswith(":str") and name and not name.startswith("__") and "\0" not in name
            is_name = is_name and name != "class_path"  # jsonargparse would import what it names, to look at it
            _require(bool(is_name) or key.tag.endswith(":merge"), key, f"key {where!r} is not the name of an option")
            _require(name not in seen, key, f"key {where!r} is there twice; keep one of them")
            _require(where != "config", key, "key 'config' would read another file; give it on the command line")
            seen.add(name)
            _check_node(child, where)
    elif node.tag.endswith(":int"):
        too_long = len(node.value) > len(str(LARGEST)) + 20
        _require(not too_long, node, f"{path} is {node.value[:20]}...; it must be at most {LARGEST}")


def _require(condition: bool, place: Any, message: str) -> None:
    if not condition:
        raise yaml.YAMLError(f"line {place.start_mark.line + 1}: {message}")


def refuse_undecodable(error: UnicodeDecodeError) -> UserError:
    """What to say of a config file in another encoding."""
    return UserError(f"the config is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8")
