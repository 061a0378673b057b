"""`--help` of a stage: its settings by section, each with its default and one sentence."""

import functools
import re
import textwrap
from typing import Any, Literal, get_args, get_origin

from rlhf.config.expected import shown
from rlhf.config.sections import REQUIRED, Setting, alternatives, section_in, section_items, settings

WIDTH, COLUMN, LONGEST_DEFAULT = 80, 34, 40
USAGE = """\
usage: {program} [FILE.yaml] [--key value ...]

{description}.

A setting is given as --key value, or as key: value in a YAML file, where the
part behind a dot stands below the part before it; what comes later counts.
"""
EXAMPLES = {"model": "--model gpt2", "rewards": "--rewards '[react_heuristic, {path: react_static, weight: 0.5}]'"}


def help_text(config_class: type, program: str, description: str) -> str:
    """The page, at most 80 columns wide."""
    found = settings(config_class)
    sections = {name: section_in(setting.hint) for name, setting in found.items()}
    lines = [USAGE.format(program=program, description=description[:1].upper() + description[1:])]
    lines += _group("settings", {n: s for n, s in found.items() if "." not in n and sections[n] is None})
    for name, section in sections.items():
        below = {n: s for n, s in found.items() if n.rpartition(".")[0] == name and sections[n] is None}
        if section is not None:
            off = " Null unless one of these is set." if found[name].default is None else ""
            lines += _group(f"{name}: {_sentence(found[name])}{off}", below)
    examples = [example for name, example in EXAMPLES.items() if name in found]
    lines += ["short forms", *(f"  {example}" for example in examples), ""] if examples else []
    return "\n".join(lines).rstrip()


def _group(title: str, members: dict[str, Setting]) -> list[str]:
    heading = textwrap.wrap(title, WIDTH)
    return [*heading, *(line for name, setting in members.items() for line in _entry(name, setting)), ""]


def _entry(name: str, setting: Setting) -> list[str]:
    """`  --name DEFAULT   What it is.`, on several lines where it does not fit."""
    head = f"  --{name} {_default(setting)}"
    body = textwrap.wrap(_sentence(setting) + _choices(setting.hint), WIDTH - COLUMN) or [""]
    if len(head) >= COLUMN - 1:
        return [head, *(f"{'':{COLUMN}}{line}" for line in body)]
    first, *rest = body
    return [f"{head:<{COLUMN}}{first}", *(f"{'':{COLUMN}}{line}" for line in rest)]


def _default(setting: Setting) -> str:
    if setting.default is REQUIRED:
        return "(required)"
    if isinstance(setting.default, str):
        return setting.default
    text = shown(setting.default)
    return text if len(text) <= LONGEST_DEFAULT else f"{text[:LONGEST_DEFAULT]}..."


def _choices(hint: Any) -> str:
    """The values that a setting can have, where they are few."""
    for kind in alternatives(hint):
        if get_origin(kind) is Literal:
            return f" [{', '.join(map(str, get_args(kind)))}]"
    if bool in alternatives(hint):
        return " [true, false]"
    one = section_items(hint)
    return f" Keys: {', '.join(settings(one))}." if one else ""


def _sentence(setting: Setting) -> str:
    """The first sentence of a setting's description."""
    return re.split(r"(?<=\.)\s", description_of(setting), maxsplit=1)[0]


def description_of(setting: Setting) -> str:
    """How its class describes a setting, on one line."""
    return _documented(setting.section).get(setting.name, "")


@functools.cache
def _documented(section: type) -> dict[str, str]:
    """The descriptions of all settings in the docstrings of a class and of those that it extends."""
    import docstring_parser

    found: dict[str, str] = {}
    for one in reversed(section.__mro__):
        for parameter in docstring_parser.parse(one.__doc__ or "").params:
            found[parameter.arg_name] = " ".join((parameter.description or "").split())
    return found
