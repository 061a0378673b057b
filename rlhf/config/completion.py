"""Shell completion: every command with its keys, and their values where these are few."""

import os
from collections.abc import Mapping
from typing import Any

from rlhf.config.checks import require
from rlhf.extras import require_extra

SHELLS = ("bash", "zsh", "tcsh")


def script(shell: str, stages: Mapping[str, type[Any]], toys: Mapping[str, type[Any]]) -> str:
    """What a shell reads to complete `rlhf`; raises UserError for another shell, or without the package shtab.

    Args:
        shell: bash, zsh or tcsh.
        stages: Config classes by command.
        toys: Likewise of the commands behind `toy`.
    """
    import jsonargparse

    require(shell in SHELLS, f"--print_shtab is {shell!r}; it must be one of {', '.join(SHELLS)}")
    require_extra("shtab", "--print_shtab")
    top = jsonargparse.ArgumentParser(prog="rlhf")
    commands = top.add_subcommands(dest="command")
    for name, config_class in stages.items():
        one = jsonargparse.ArgumentParser(description=name)  # without one, shtab's zsh cannot do it
        one.add_argument("--config", "-c", action="config")
        one.add_class_arguments(config_class)
        commands.add_subcommand(name, one)
    report = jsonargparse.ArgumentParser(description="report")
    report.add_argument("--output", type=os.PathLike)
    commands.add_subcommand("report", report)
    toy = jsonargparse.ArgumentParser(description="toy")
    commands.add_subcommand("toy", toy)
    names = toy.add_subcommands(dest="toy")
    for name, config_class in toys.items():
        one = jsonargparse.ArgumentParser(description=name)
        one.add_class_arguments(config_class)
        names.add_subcommand(name, one)
    return str(top.get_completion_script(f"shtab-{shell}"))
