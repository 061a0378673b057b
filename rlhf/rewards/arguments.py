"""Which of the arguments that are on offer a reward takes."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from rlhf.data.columns import RESERVED_COLUMNS


def arguments_for(function: Callable[..., Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    """All that is offered to a function with `**kwargs`, to another one what it names.

    Raises ValueError, in words that go on after the reward's name, for an argument that it needs and nobody offers.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some callables in C do not tell
        return dict(offered)
    by_name = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    missing = [p.name for p in by_name if p.default is p.empty and p.name not in offered]
    if missing:
        columns = ", ".join(name for name in offered if name not in RESERVED_COLUMNS) or "none"
        why = " (only responses of a model have them)" if "completion_ids" in missing else ""
        raise ValueError(f"needs {', '.join(missing)}{why}; the data has the columns: {columns}")
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    names = {p.name for p in by_name}
    return {name: value for name, value in offered.items() if takes_any or name in names}


def require_options(kind: type, given: Mapping[str, Any]) -> None:
    """Raise ValueError, in words that go on after the reward's name, for an option that is missing or unknown."""
    try:
        parameters = inspect.signature(kind).parameters
    except (TypeError, ValueError):
        return
    named = {name: p for name, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    missing = [name for name, p in named.items() if p.default is p.empty and name not in given]
    if missing:
        raise ValueError(f"args must give {', '.join(missing)}")
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for name in given.keys() - named.keys():
        close = difflib.get_close_matches(name, named, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"args has no {name!r}; {hint}it takes: {', '.join(named) or 'none'}")


def columns_of_data(given: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What of a reward's keyword arguments are columns of the data."""
    return {name: values for name, values in given.items() if name not in RESERVED_COLUMNS and isinstance(values, list)}
