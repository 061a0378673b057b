"""The message about a key that a stage does not have: which one is meant."""

import difflib

from rlhf.config.foreign import NAMES
from rlhf.config.sections import section_items, settings
from rlhf.errors import UserError

CLOSE = 0.6


def refuse_unknown(config_class: type, key: str, shown: str) -> UserError:
    """The error for a dotted key: what it is called here, or the closest one.

    Args:
        config_class: Of the stage, or of an item of a list.
        key: As it was given, with underscores.
        shown: What it is and how it was written: `option --lr`.
    """
    known = list(settings(config_class))
    elsewhere = _elsewhere(key, known)
    if elsewhere:
        return UserError(f"unknown {shown}: {elsewhere}")
    above = key.rpartition(".")[0]
    while above and above not in known:
        above = above.rpartition(".")[0]
    if above and section_items(settings(config_class)[above].hint) is not None:
        return UserError(
            f"unknown {shown}: {above} is a list; give it whole, as in [{{path: react_static, weight: 0.5}}]"
        )
    near = closest(key, known)
    if near:
        return UserError(f"unknown {shown}; did you mean {near}?")
    return UserError(f"unknown {shown}; --help lists every key")


def closest(key: str, known: list[str]) -> str | None:
    """The known dotted key that is meant: one of the same section, of that last name anywhere, or a similar one."""
    name = key.rpartition(".")[2]
    same = [other for other in known if other.rpartition(".")[2] == name]
    if same:
        return " or ".join(same[:3])

    def likeness(other: str) -> float:
        whole = difflib.SequenceMatcher(None, key, other).ratio()
        return max(whole, difflib.SequenceMatcher(None, name, other.rpartition(".")[2]).ratio() - 0.02)

    best = max(known, key=likeness, default=None)
    return best if best is not None and likeness(best) >= CLOSE else None


def _elsewhere(key: str, known: list[str]) -> str | None:
    """What a name of another library is here; None where that says nothing for this stage."""
    entry = NAMES.get(key) or NAMES.get(key.rpartition(".")[2])
    if entry is None:
        return None
    here = [other for wanted in entry.keys for other in known if other == wanted or other.endswith(f".{wanted}")]
    if entry.keys and not here:
        return None
    called = f"here it is {' or '.join(dict.fromkeys(here))}" if here else "there is no such setting here"
    return f"{called} ({entry.remark})" if entry.remark else called
