"""What a loop or callbacks of one's own can get wrong, each in one line."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlhf.config.checks import require

if TYPE_CHECKING:
    from rlhf.config.ppo import PPOConfig

PHASE = re.compile("(after|before|on)_")


class Hooks:
    """A class whose methods after_*, before_* and on_* are called; its subclasses may have none besides."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        kind = next(kind for kind in cls.__mro__ if Hooks in kind.__bases__)
        called = [name for name in vars(kind) if PHASE.match(name)]
        for name in filter(PHASE.match, dir(cls)):
            require(
                name in called or not callable(getattr(cls, name)),
                f"{cls.__name__}.{name} would never be called; {kind.__name__} has {', '.join(called)}",
            )


def instances(hooks: Any, kind: type) -> Sequence[Any]:
    """The callbacks as they are; raises UserError for anything but a list of instances of `kind`."""
    name = kind.__name__
    require(
        isinstance(hooks, Sequence), f"callbacks is {hooks!r}; it must be a list of instances of a subclass of {name}"
    )
    for hook in hooks:
        given = f"the class {hook.__name__}, not an instance" if isinstance(hook, type) else f"a {type(hook).__name__}"
        require(isinstance(hook, kind), f"callbacks holds {given}; give instances of a subclass of {name}")
    return hooks


def replaced(hook: Any, phase: str, given: Any, returned: Any) -> Any:
    """What a callback returned, or what it was given where that is None.

    Raises UserError for something of another kind, and for other rows than those that the update goes on with.
    """
    if returned is None:
        return given
    where, kind = f"{type(hook).__name__}.{phase}", type(given)
    require(
        isinstance(returned, kind),
        f"{where} returned a {type(returned).__name__}; it must be a {kind.__name__}, which takes the place of what "
        "the method was given, or None",
    )
    require(
        phase == "after_sampling" or n_rows(returned) == n_rows(given),
        f"{where} returned {n_rows(returned)} rows and was given {n_rows(given)}; scores and samples belong to the "
        "rows, so keep them all (advantages of 0 leave a row out; after_sampling may drop rows)",
    )
    return returned


def n_rows(value: Any) -> int:
    """Responses in a rollout, in scores or in an update."""
    return len(getattr(value, "total", getattr(value, "rollout", value)))


def require_updates_left(config: "PPOConfig", done: int) -> None:
    """Raise UserError where a linear schedule has come to its end: the learning rate would be negative."""
    require(
        config.lr_schedule != "linear" or done < config.num_updates,
        f"num_updates is {config.num_updates} and all of them are done, so that lr_schedule linear leaves a learning "
        "rate of 0; raise num_updates, or set lr_schedule: constant",
    )
