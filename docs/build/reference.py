"""Writes the generated pages of docs/reference: commands, the settings of each, and the built-in rewards.

    python docs/build/reference.py

tests/test_docs_reference.py fails where a page is not what this would write.
"""

import inspect
import os
import typing
from pathlib import Path
from typing import Any, Literal

import docstring_parser

from rlhf.cli import COMMANDS, ON_SEVERAL_PROCESSES, STAGES
from rlhf.config.expected import shown
from rlhf.config.help import description_of
from rlhf.config.rewards import BUILTINS, RewardSpec
from rlhf.config.sections import REQUIRED, Setting, alternatives, section_in, section_items, settings
from rlhf.report.write import parser as report_parser
from rlhf.rewards.loading import find
from rlhf.toy.cli import TOYS

FOLDER = Path(__file__).resolve().parents[1] / "reference"
NOTE = "<!-- Written by docs/build/reference.py; do not edit. -->"
HEAD = "| key | type | default | what it does |\n| --- | --- | --- | --- |"
TYPES = {int: "integer", float: "number", bool: "`true` or `false`", str: "text", type(None): "`null`"}
OF_A_STAGE = """\
Set a key as `--key value`, or in the YAML file, where the part after a dot is nested below the part before it. The
command line wins over the file. An unknown key is an error that names the closest known one.
"""
COMMANDS_HEAD = """\
Every stage reads one YAML file and any number of keys: `rlhf STAGE FILE.yaml --key value`. `rlhf STAGE --help` prints
every key with its default. Exit status: 0 if all went well or the run was saved and stopped (SIGTERM, Ctrl-C), 1 if
`rlhf doctor` found a failure, 2 for an error, which is one line, and 130 after a second Ctrl-C.

| command | what it does |
| --- | --- |
"""
REWARDS_HEAD = """\
The names that `path` of a reward can be, besides a function or class of your own. Options go into `args`:
`{path: length, args: {maximum: 600}}`. How each of them is fooled, and how to choose: [rewards](rewards.md).
"""
SHARED = {"doctor": "ppo"}
"""Stages whose settings are those of another."""
WITHOUT_SETTINGS = ("setup-render",)
STAGES_WITHIN = ("sft", "ppo")
"""Sections of the pipeline that are stages with a page of their own."""
FIRST_WORDS = {"fetch": "smollm2"}


def pages() -> dict[Path, str]:
    """Every generated page by its path."""
    found = {
        FOLDER / "commands.md": commands_page(),
        FOLDER / "built-in-rewards.md": rewards_page(),
        FOLDER / "config" / "toy.md": toy_page(),
    }
    for name in STAGES:
        if name not in (*SHARED, *WITHOUT_SETTINGS):
            found[FOLDER / "config" / f"{name}.md"] = config_page(name)
    return found


def commands_page() -> str:
    """The overview, then a section for each command."""
    rows = "\n".join(f"| [`rlhf {name}`](#rlhf-{name}) | {cell(text)} |" for name, text in COMMANDS.items())
    sections = [command_section(name, text) for name, text in COMMANDS.items()]
    others = "| `rlhf --version` | the version |\n| `rlhf --print_shtab SHELL` | completion for bash, zsh or tcsh |"
    return f"# Commands\n\n{NOTE}\n\n{COMMANDS_HEAD}{rows}\n{others}\n\n" + "\n".join(sections)


def command_section(name: str, text: str) -> str:
    """What one command does, how it is called, and where its settings are."""
    return f"## rlhf {name}\n\n{sentence(text)}\n\n{usage(name)}\n"


def usage(name: str) -> str:
    """The call of a command and its settings."""
    if name == "report":
        rows = [
            f"| `{'`, `'.join(a.option_strings) or a.metavar}` | {cell(a.help)} |" for a in report_parser()._actions
        ]
        return "`rlhf report RUN [RUN ...] [--output FILE]`\n\n| option | what it does |\n| --- | --- |\n" + "\n".join(
            rows
        )
    if name == "toy":
        return f"`rlhf toy NAME [--key value ...]`, NAME one of {listed(TOYS)}. [Settings](config/toy.md)."
    if name in WITHOUT_SETTINGS:
        return f"`rlhf {name}`. {summary(STAGES[name].config_class)}"
    settings_of = SHARED.get(name, name)
    first = FIRST_WORDS.get(name, "[FILE.yaml]")
    where = f"[Settings](config/{settings_of}.md)" + (f", those of `rlhf {settings_of}`" if name in SHARED else "")
    many = " Runs on several processes: [how to](../how-to/several-gpus.md)." if name in ON_SEVERAL_PROCESSES else ""
    return f"`rlhf {name} {first} [--key value ...]`. {where}.{many}"


def config_page(name: str) -> str:
    """The settings of a stage, a table for each section."""
    config_class = STAGES[name].config_class
    found = settings(config_class)
    parts = [f"# Settings of rlhf {name}\n\n{NOTE}\n\n{summary(config_class)}\n\n{OF_A_STAGE}"]
    parts.append(f"## Top level\n\n{table(plain_below('', found))}\n")
    for key, one in found.items():
        if section_in(one.hint) is not None and not (name == "pipeline" and key.startswith(STAGES_WITHIN)):
            unset = " Null unless one of its keys is set." if one.default is None else ""
            parts.append(f"## {key}\n\n{markdown(description_of(one))}{unset}\n\n{table(plain_below(key, found))}\n")
    within = STAGES_WITHIN if name == "pipeline" else ()
    parts += [f"## {key}\n\n{markdown(description_of(found[key]))} Keys: [rlhf {key}]({key}.md).\n" for key in within]
    if any(section_items(one.hint) is RewardSpec for one in found.values()):
        parts.append(f"## Keys of a reward\n\n{summary(RewardSpec)}\n\n{table(settings(RewardSpec))}\n")
    return "\n".join(parts)


def plain_below(section: str, found: dict[str, Setting]) -> dict[str, Setting]:
    """The settings of a section that are no sections themselves."""
    return {key: s for key, s in found.items() if key.rpartition(".")[0] == section and section_in(s.hint) is None}


def rewards_page() -> str:
    """The built-in rewards with their options."""
    rows = [f"| `{name}` | {cell(summary(find(name)))} | {options(find(name))} |" for name in BUILTINS]
    head = "| reward | what it measures | options |\n| --- | --- | --- |\n"
    return f"# Built-in rewards\n\n{NOTE}\n\n{REWARDS_HEAD}\n{head}" + "\n".join(rows) + "\n"


def options(reward: type) -> str:
    """The options of a reward with their defaults."""
    parameters = inspect.signature(reward).parameters.values()
    return "<br>".join(
        f"`{one.name}`, required" if one.default is one.empty else f"`{one.name}` = `{anywhere(shown(one.default))}`"
        for one in parameters
    )


def anywhere(default: str) -> str:
    """A default that depends on the environment, as it is for everybody."""
    return default.replace(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "${XDG_CACHE_HOME:-~/.cache}")


def toy_page() -> str:
    """The settings of the toys."""
    parts = [
        f"# Settings of rlhf toy\n\n{NOTE}\n\nThe toys of [PPO in five steps](../../guide/ppo-in-five-steps.md).\n"
    ]
    for name, (_, config_class) in TOYS.items():
        said = {p.arg_name: p.description for one in reversed(config_class.__mro__) for p in attributes(one)}
        rows = [row(key, one, said.get(key) or "") for key, one in settings(config_class).items()]
        parts.append("\n".join([f"## rlhf toy {name}\n\n{summary(config_class)}\n\n{HEAD}", *rows]) + "\n")
    return "\n".join(parts)


def attributes(one: type) -> list[docstring_parser.DocstringParam]:
    """What stands below the attributes of a class in its source."""
    return docstring_parser.parse_from_object(one).params if one.__module__.startswith("rlhf.") else []


def table(members: dict[str, Setting]) -> str:
    """A row for each setting."""
    return "\n".join([HEAD, *(row(key, one, description_of(one)) for key, one in members.items())])


def row(key: str, setting: Setting, description: str) -> str:
    """A row of the table of settings."""
    return f"| `{key}` | {type_of(setting.hint)} | {default_of(setting)} | {cell(about(setting, description))} |"


def about(setting: Setting, description: str) -> str:
    """The description as a sentence; a value that it begins with stays as it is written."""
    first, space, rest = markdown(description).partition(" ")
    values = [
        str(v)
        for kind in alternatives(setting.hint)
        if typing.get_origin(kind) is Literal
        for v in typing.get_args(kind)
    ]
    value = first.rstrip(":,")
    return f"`{value}`{first[len(value) :]}{space}{rest}" if value in values else sentence(f"{first}{space}{rest}")


def type_of(hint: Any) -> str:
    """What a setting takes."""
    return " or ".join(dict.fromkeys(one_type(kind) for kind in alternatives(hint)))


def one_type(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return listed(typing.get_args(kind))
    if typing.get_origin(kind) is list:
        [item] = typing.get_args(kind)
        return "list of [rewards](#keys-of-a-reward)" if section_items(kind) else f"list, each {one_type(item)}"
    if typing.get_origin(kind) is tuple:
        return "list of numbers"
    return TYPES.get(kind, "path" if kind is Path else "mapping")


def default_of(setting: Setting) -> str:
    """The default, in backticks, or that there is none."""
    if setting.default is REQUIRED:
        return "required"
    default = str(setting.default) if isinstance(setting.default, Path) else setting.default
    return f"`{default if isinstance(default, str) else shown(default)}`"


def listed(names: typing.Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def summary(config_class: type) -> str:
    """The first paragraph of a docstring."""
    return markdown(docstring_parser.parse(config_class.__doc__ or "").short_description or "")


def markdown(text: str) -> str:
    """A docstring's words as YAML has them."""
    return " ".join(text.split()).replace("None ", "`null` ")


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) or not text else ".")


def cell(text: str | None) -> str:
    """Text as it stands in a table."""
    return (text or "").replace("|", "\\|")


def main() -> None:
    """Write the pages."""
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
