"""Modules under the names that they had before they moved into folders: each still imports, and warns once."""

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
import warnings
from collections.abc import Sequence
from typing import Any

MODULES = {
    "rlhf.callbacks": ["rlhf.ppo.trainer"],
    "rlhf.checkpoint": ["rlhf.policy.files"],
    "rlhf.evaluate": ["rlhf.stages.evaluate", "rlhf.evaluation.measure"],
    "rlhf.files": ["rlhf.runs.files"],
    "rlhf.generate": ["rlhf.stages.generate"],
    "rlhf.launch": ["rlhf.parallel.launch"],
    "rlhf.losses": ["rlhf.maths.losses", "rlhf.maths.advantages", "rlhf.maths.kl"],
    "rlhf.pipeline": ["rlhf.stages.pipeline"],
    "rlhf.reward_model": ["rlhf.stages.reward_model"],
    "rlhf.rollout_files": ["rlhf.ppo.rollout_files"],
    "rlhf.score": ["rlhf.stages.score"],
    "rlhf.sft": ["rlhf.stages.sft"],
    "rlhf.tensors": ["rlhf.maths.tensors"],
    "rlhf.trainer": ["rlhf.ppo.trainer"],
}
"""Old name: where its public names are now."""
NAMES = {"rlhf.ppo": {"run_ppo": "rlhf.stages.ppo", "build_trainer": "rlhf.stages.ppo"}}
"""Of a module that is now a folder: names that were in it."""


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes a module of an old name, with all that the new ones hold."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname in MODULES else None

    def exec_module(self, module: types.ModuleType) -> None:
        homes = MODULES[module.__name__]
        warn(module.__name__, homes)
        for home in homes:
            found = vars(importlib.import_module(home))
            vars(module).update({name: value for name, value in found.items() if not name.startswith("__")})


def look_up(module: str, name: str) -> Any:
    """The `__getattr__` of a folder whose module of the same name has moved; raises AttributeError as that does."""
    home = NAMES[module].get(name)
    if home is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warn(f"{module}.{name}", [f"{home}.{name}"])
    return getattr(importlib.import_module(home), name)


def warn(old: str, homes: list[str]) -> None:
    """Warn where something is now."""
    warnings.warn(f"{old} has moved to {' and '.join(homes)}", FutureWarning, stacklevel=3)


def install() -> None:
    """Let the import system ask here for what it finds nowhere else."""
    sys.meta_path.append(Finder())
