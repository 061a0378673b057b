"""The built-in rewards as callables: for a config, for `GRPOTrainer(reward_funcs=[react_full])`, for a notebook."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from rlhf.config.rewards import BUILTINS, RewardSpec
from rlhf.errors import RewardError
from rlhf.rewards.loading import find, load_reward

CLASSES = {path.rpartition(".")[2]: path for path in BUILTINS.values()}
"""Where the class of each built-in is."""


class BuiltIn:
    """A built-in reward with its default options; its class takes others.

    It is made at the first call. Raises RewardError for a built-in that does not do without options, such as `regex`,
    and for an argument that is an option of the class.
    """

    def __init__(self, name: str) -> None:
        self.__name__ = name
        self.__doc__ = f"The built-in reward {name!r} with its default options."

    def __call__(self, prompts: Sequence[Any] | None = None, completions: Sequence[Any] = (), **columns: Any) -> Any:
        """One item per completion, as `rlhf.rewards.contract` says."""
        prompts = [""] * len(completions) if prompts is None else prompts
        self._refuse_options(columns)
        return self._reward(prompts=prompts, completions=completions, **columns)

    def explain(self, prompt: Any, completion: Any, **columns: Any) -> str:
        """The reason for a score; nothing where the reward has none."""
        explain = getattr(self._reward, "explain", None)
        return explain(prompt, completion, **columns) if explain else ""

    @functools.cached_property
    def _reward(self) -> Callable[..., Any]:
        return load_reward(RewardSpec(path=self.__name__))

    def _refuse_options(self, columns: dict[str, Any]) -> None:
        kind = find(self.__name__)
        options = columns.keys() & inspect.signature(kind).parameters.keys()
        if options:
            raise RewardError(
                f"{self.__name__} is called with {', '.join(sorted(options))}: "
                f"options go to the class, rlhf.rewards.{kind.__name__}(...), and its instance takes the columns"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return BuiltIn, (self.__name__,)

    def __repr__(self) -> str:
        return f"<built-in reward {self.__name__}>"


@functools.cache
def built_in(name: str) -> Any:
    """The callable of a built-in, or its class; raises AttributeError for another name."""
    if name in BUILTINS:
        return BuiltIn(name)
    if name in CLASSES:
        return find(CLASSES[name])
    raise AttributeError(f"module 'rlhf.rewards' has no attribute {name!r}")
