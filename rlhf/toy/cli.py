"""`rlhf toy NAME [options]`: the command line of the toys."""

from argparse import ArgumentError
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from jsonargparse import ArgumentParser, set_parsing_settings

from rlhf.errors import UserError, one_line
from rlhf.extras import require_extra
from rlhf.toy import config as configs

TOYS: dict[str, tuple[str, type]] = {
    "bandit": ("bandit", configs.BanditConfig),
    "contextual": ("contextual", configs.ContextualConfig),
    "dynamics": ("dynamics", configs.DynamicsConfig),
    "tiny-lm": ("tiny_lm", configs.TinyLMConfig),
    "figures": ("figures", configs.FiguresConfig),
}


def parser() -> ArgumentParser:
    """The parser of all toys; it loads neither torch nor matplotlib."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    plain: dict[str, Any] = {"allow_abbrev": False, "exit_on_error": False}
    top = ArgumentParser(prog="rlhf toy", description="Small worlds in which PPO can be watched.", **plain)
    toys = top.add_subcommands(dest="toy", required=True)
    for name, (_, config_class) in TOYS.items():
        one = ArgumentParser(**plain)
        one.add_class_arguments(config_class)
        toys.add_subcommand(name, one, help=(config_class.__doc__ or "").splitlines()[0])
    return top


def main(argv: Sequence[str] | None = None) -> None:
    """Run the toy that argv names; prints its table and where its files are.

    Raises UserError for words and values that it cannot take.
    """
    try:
        arguments = parser().parse_args(argv)
    except ArgumentError as error:
        raise UserError(f"{one_line(error).rstrip('.')}; rlhf toy --help says more") from error
    require_extra("matplotlib", "rlhf toy")
    module, config_class = TOYS[arguments.toy]
    try:
        config = config_class(**vars(arguments[arguments.toy]))
    except ValueError as error:
        raise UserError(str(error)) from error
    import torch

    from rlhf.report.write import REPORT_FILE, write_report
    from rlhf.runs.folder import METRICS_FILE

    torch.set_num_threads(config.threads)
    try:
        config.output_dir.mkdir(parents=True, exist_ok=True)  # now: training may take minutes
        import_module(f"rlhf.toy.commands.{module}").run(config)
    except OSError as error:
        raise UserError(f"cannot write into {config.output_dir} ({error}); choose another --output_dir") from error
    folder, page = config.output_dir, config.output_dir / REPORT_FILE
    print(f"\neverything is in {folder}")
    if (folder / METRICS_FILE).is_file() and write_report([folder], page):  # `figures` trains nothing
        print(f"report       {page}  (open it in a browser)")
