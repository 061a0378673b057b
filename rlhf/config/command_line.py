"""From `FILE.yaml --key value ...` to the configuration object of a stage."""

import re
from typing import Any, TypeVar

from rlhf.config import files
from rlhf.config.arguments import setting, split
from rlhf.config.expected import what_is_wrong
from rlhf.config.guard import require_own_code
from rlhf.config.renamed import renamed
from rlhf.config.sections import REQUIRED, alternatives, hints, section_in, section_items, settings
from rlhf.config.shorthand import spelled_out
from rlhf.config.unknown import refuse_unknown
from rlhf.errors import UserError

Config = TypeVar("Config")


def parse(config_class: type[Config], argv: list[str], program: str = "rlhf", description: str = "") -> Config:
    """The configuration that the arguments describe; later ones override earlier ones.

    Raises UserError for an unknown key, a value that its key cannot take, a missing file, or a file that
    `require_own_code` refuses; SystemExit after `--help` has been printed.
    """
    if "--help" in argv or "-h" in argv:
        from rlhf.config.help import help_text

        print(help_text(config_class, program, description))
        raise SystemExit(0)
    values, given = read(config_class, argv)
    config = build(config_class, values)
    require_own_code(config, given)
    return config


def read(config_class: type, argv: list[str]) -> tuple[dict[str, Any], list[str]]:
    """All settings as one nested mapping under their present names, and the config files among the arguments."""
    values: dict[str, Any] = {}
    given: list[str] = []
    gathered: set[str] = set()
    for argument in split(argv):
        if argument.key == "config":
            if argument.value is None:
                raise UserError("--config needs a file behind it")
            given.append(argument.value)
            merge(values, checked(config_class, files.read_config(argument.value)))
        else:
            again = argument.key in gathered
            merge(values, checked(config_class, setting(config_class, argument, gathered)), again)
    return values, given


def checked(config_class: type, values: dict[str, Any]) -> dict[str, Any]:
    """A nested mapping with the present names of its keys and without short forms.

    Raises UserError for a key that is not known, or is given under two names.
    """
    present = spelled_out(config_class, renamed(config_class, values))
    _require_known(config_class, config_class, present)
    return present


def merge(values: dict[str, Any], later: dict[str, Any], append: bool = False) -> None:
    """Let the settings of a later mapping replace those of an earlier one, key by key; or append to its lists."""
    for key, value in later.items():
        before = values.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            merge(before, value, append)
        elif append and isinstance(before, list) and isinstance(value, list):
            values[key] = before + value
        else:
            values[key] = _unshared(value)


def _unshared(value: Any) -> Any:
    """A copy in which every mapping and list has its place alone: YAML's aliases put one into several."""
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value


def build(config_class: type[Config], values: dict[str, Any]) -> Config:
    """The object with these settings; raises UserError for one that is missing or cannot have its value."""
    import jsonargparse

    wrong = what_is_wrong(config_class, values) or what_is_missing(config_class, values)
    if wrong is not None:
        raise UserError(files.masked_line(UserError(wrong)))
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(config_class)
    try:
        return instantiate(config_class, vars(parser.parse_object(values)))
    except jsonargparse.ArgumentError as error:
        raise UserError(files.masked_line(error)) from error


def instantiate(section: type, values: dict[str, Any], path: str = "") -> Any:
    """A section and those in it; what one of them refuses is said with its whole name, as in `lora.r is -1`."""
    built, settings_here = dict(values), hints(section)
    try:
        for name, value in values.items():
            below, one = section_in(settings_here[name]), section_items(settings_here[name])
            if below is not None and value is not None:
                built[name] = instantiate(below, vars(value), f"{path}{name}.")
            elif one is not None and value is not None:
                items = enumerate(value)
                built[name] = [instantiate(one, vars(item), f"{path}{name}[{number}].") for number, item in items]
        return section(**built)
    except UserError as error:
        first = re.match(r"\w+", str(error))
        raise UserError(f"{path}{error}" if first and first[0] in settings_here else str(error)) from error


def what_is_missing(config_class: type, values: dict[str, Any], path: str = "") -> str | None:
    """The first setting without a default that nobody has given; None if all are there."""
    for name, hint in hints(config_class).items():
        below, one = section_in(hint), section_items(hint)
        value = values.get(name, {} if below and type(None) not in alternatives(hint) else None)
        sections = [(below, f"{path}{name}.", value)] if below else []
        if one and isinstance(value, list):
            sections = [(one, f"{path}{name}[{number}].", item) for number, item in enumerate(value)]
        for section, where, inner in sections:
            missing = what_is_missing(section, inner, where) if isinstance(inner, dict) else None
            if missing is not None:
                return missing
        if below is None and name not in values and settings(config_class)[name].default is REQUIRED:
            example = " react_heuristic" if one else ""
            return f"{path}{name} is not set; give it in the config file, or as --{path}{name}{example}"
    return None


def _require_known(stage: type, section: type, values: dict[str, Any], path: str = "") -> None:
    """Raise UserError for the first key of a nested mapping that its section does not have."""
    for key, value in values.items():
        hint = hints(section).get(key)
        if hint is None:
            in_a_list = "[" in path  # there the stage has no dotted name for it
            raise refuse_unknown(
                section if in_a_list else stage, key if in_a_list else f"{path}{key}", f"key {path + key!r}"
            )
        below, one = section_in(hint), section_items(hint)
        if below is not None and isinstance(value, dict):
            _require_known(stage, below, value, f"{path}{key}.")
        for number, item in enumerate(value) if isinstance(value, list) else ():
            if one is not None and isinstance(item, dict):
                _require_known(stage, one, item, f"{path}{key}[{number}].")
