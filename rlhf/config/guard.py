"""A config that came with a run or a checkpoint may be somebody else's: it runs no code and sends nothing unasked."""

import dataclasses
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from rlhf.config.checks import require
from rlhf.config.environment import ENVIRONMENTS, EnvironmentSpec
from rlhf.config.rewards import BUILTINS, RewardSpec

MARKS_OF_A_RUN = (
    "versions.json", "done.json", "policy.json", "metrics.jsonl", "evaluation.json", "adapter_config.json",
    "adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json", "value_head.safetensors",
)  # fmt: skip
ADDRESS = re.compile(r"(^|_)(url|uri|endpoint|host|server|address|webhook|proxy|base)s?$", re.IGNORECASE)
ASK_A_SERVER = ("judge", "server")
CODE, SENDS = "which would run code that came with it", "which would send what is trained on, or its result, elsewhere"


def require_own_code(config: Any, files: list[str]) -> None:
    """Raise UserError where a config from a run's folder leads to other people's code, or to other machines.

    That is rewards and environments that are not built in or have an address, trust in a model's code, a generation
    server, an upload. Who has read the file copies it out of the run's folder.
    """
    foreign = next((file for file in files if came_with_a_run(Path(file))), None)
    what, why = next(demands(config), ("", "")) if foreign else ("", "")
    require(
        not what,
        f"{foreign} lies in the folder of a run and asks for {what}, {why}; "
        "read it, and copy it to a file of your own elsewhere if you trust it",
    )


def came_with_a_run(file: Path) -> bool:
    """Whether a config lies beside what a run or a checkpoint consists of, or at any depth below it."""
    beyond = (Path.home(), Path(file.resolve().anchor))
    above = [folder for folder in file.resolve().parents if folder not in beyond]
    return any((folder / mark).is_file() for folder in above for mark in MARKS_OF_A_RUN)


def demands(config: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """What in a config leads to code that is not ours or to another machine, and what that would do, in words."""
    if isinstance(config, RewardSpec):
        yield from _of_plugin(f"the reward {config.path!r}", config.path, BUILTINS, config.args)
    elif isinstance(config, EnvironmentSpec):
        yield from _of_plugin(f"the environment {config.name!r}", config.name, ENVIRONMENTS, config.args)
    elif isinstance(config, list):
        for item in config:
            yield from demands(item, path)
    elif dataclasses.is_dataclass(config):
        for field in dataclasses.fields(config):
            value, name = getattr(config, field.name), f"{path}{field.name}"
            if field.name == "trust_remote_code" and value:
                yield name, CODE
            if (field.name == "push_to_hub" or ADDRESS.search(field.name)) and value:
                yield name, SENDS
            yield from demands(value, f"{name}.")


def _of_plugin(what: str, name: str, ours: Collection[str], args: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """A reward or an environment: whose code it is, and which addresses it is given."""
    arguments = list(_leaves(args))
    if name not in ours or any(key == "trust_remote_code" and value for key, value in arguments):
        yield what, CODE
    if name in ASK_A_SERVER:
        yield what, SENDS
    for key, value in arguments:
        if isinstance(value, str) and value and (ADDRESS.search(key) or "://" in value):
            yield f"{what} with {key}: {value!r}", SENDS


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, key)
    else:
        yield key, value
