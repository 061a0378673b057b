"""The words of a command line as settings: what is a file, what is a key, what is its value."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, cast, get_args, get_origin

import yaml

from rlhf.config.files import strict_load
from rlhf.config.renamed import present_name
from rlhf.config.sections import alternatives, hints, item_of, section_in, section_items
from rlhf.config.unknown import refuse_unknown
from rlhf.errors import UserError

YAML_FILES = (".yaml", ".yml")
SHORT = {"-c": "--config"}


class Given(NamedTuple):
    """`--key value`; a config file has the key `config`. The value is None where there is none."""

    key: str
    value: str | None


def split(argv: list[str]) -> Iterator[Given]:
    """The arguments in their order: `--key value`, `--key=value`, `-c FILE`, `FILE.yaml`; a dash in a key is `_`."""
    words = [SHORT.get(word, word) for word in argv]
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            yield Given("config", _config_file(word))
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        if equals:
            yield Given(_key(name), value)
        else:
            yield Given(_key(name), words.pop(0) if words and not words[0].startswith("--") else None)


def setting(config_class: type, given: Given, gathered: set[str]) -> dict[str, Any]:
    """An argument as a nested mapping under the names of the config classes.

    Args:
        config_class: Of the stage.
        given: The argument.
        gathered: Keys of lists that an earlier argument has begun; this one's is added.

    Raises UserError for a key that is not known, and for one without a value.
    """
    parts = given.key.split(".")
    hint = _hint_at(config_class, parts)
    if hint is None:
        raise refuse_unknown(config_class, given.key, f"option --{given.key}")
    if given.value is None and bool not in alternatives(hint):
        raise UserError(f"--{given.key} needs a value behind it")
    value: Any = True if given.value is None else _value(hint, given.value)
    if item_of(hint) is not None:
        gathered.add(given.key)
    for part in reversed(parts):
        value = {part: value}
    return cast(dict[str, Any], value)


def _hint_at(config_class: type, parts: list[str]) -> Any:
    """The type of a setting, or of what a mapping such as `environment.args` holds; None where there is neither."""
    section: type | None = config_class
    hint: Any = None
    for part in parts:
        if section is not None:
            hint = hints(section).get(present_name(section, part))
        elif hint is not Any:
            hint = next((get_args(kind)[1] for kind in alternatives(hint) if get_origin(kind) is dict), None)
        if hint is None:
            return None
        section = section_in(hint)
    return hint


def _value(hint: Any, text: str) -> Any:
    """What a text on the command line is for a setting of this type; what does not fit stays a text."""
    kinds = alternatives(hint)
    if text == "null" and type(None) in kinds:
        return None
    if item_of(hint) is str:
        return _texts(text)
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    if not section_items(hint) and (str in kinds or text in words or (words and bool not in kinds)):
        return text
    value = _as_yaml(text)
    return float("inf") if value == "inf" and float in kinds else value


def _texts(text: str) -> Any:
    """Several texts from "[a, b]" or "['a']"; else the text itself: "[END]" may be a stop string, "- x" a prompt."""
    value = _as_yaml(text) if text.lstrip().startswith("[") else text
    is_quoted = text.lstrip(" [")[:1] in ("'", '"')
    return value if isinstance(value, list) and (len(value) != 1 or is_quoted) else text


def _as_yaml(text: str) -> Any:
    try:
        return strict_load(text)
    except yaml.YAMLError:
        return text


def _key(name: str) -> str:
    return name.replace("-", "_")


def _config_file(word: str) -> str:
    """A word that is no option has to be the name of a config file."""
    if word.endswith(YAML_FILES):
        return word
    key, equals, value = word.partition("=")
    hint = f"write --{key} {value}" if equals else "options begin with --, and a config file ends in .yaml"
    raise UserError(f"unexpected {word!r}; {hint}")
