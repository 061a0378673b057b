"""From `--config FILE --key value ...` to the configuration object of a stage."""

from typing import Any, TypeVar

from rlhf.config import files
from rlhf.config.renamed import renamed_option
from rlhf.errors import UserError

Config = TypeVar("Config")


def parse(config_class: type[Config], argv: list[str], program: str = "rlhf", description: str = "") -> Config:
    """The configuration that the arguments describe; later ones override earlier ones.

    Raises UserError for an unknown key, a wrong type, a missing file, or a file that `files.require_own_code` refuses.
    """
    import jsonargparse

    parser = jsonargparse.ArgumentParser(
        prog=program, description=description, exit_on_error=False, parser_mode=files.strict_parser_mode(config_class)
    )
    parser.add_argument("--config", action="config", help="YAML file; later options override it")
    parser.add_class_arguments(config_class, sub_configs=True)
    try:
        parsed = parser.parse_args([renamed_option(config_class, argument) for argument in argv])
        files.check_sections(config_class, parsed)
        values: dict[str, Any] = vars(parser.instantiate(parsed))
    except jsonargparse.ArgumentError as error:
        raise UserError(files.one_line(error)) from error
    except UnicodeDecodeError as error:
        raise files.refuse_undecodable(error) from error
    given = [str(file) for file in values.pop("config") or []]
    config = config_class(**values)
    files.require_own_code(config, given)
    return config
