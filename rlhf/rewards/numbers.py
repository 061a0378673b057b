"""Values that rewards return or log, as plain Python; scalars of numpy and torch are numbers, bools are none."""

import math
import numbers
from typing import Any

from rlhf.rewards.contract import shorten

LARGEST = 3.4028234663852886e38
"""Of float32, in which scores are summed up and learned from."""


def finite(value: Any) -> float:
    """`value` as a float; raises ValueError, in words that go on after "returned", for anything but a finite number."""
    scalar = value.item() if is_scalar(value) else value
    if isinstance(scalar, bool) or not isinstance(scalar, numbers.Real):
        raise ValueError(f"{shorten(str(value), 40)}, a {type(value).__name__}, as a score")
    try:
        number = float(scalar)
    except OverflowError:  # an integer of more than 308 digits
        number = math.inf
    if not abs(number) <= LARGEST:
        raise ValueError(f"the score {number:g}" + (f", beyond {LARGEST:.2g}" if math.isfinite(number) else ""))
    return number


def plain(value: Any) -> str | int | float | None:
    """`value` as a cell of a table can hold it: a finite number or None as it is, anything else as text."""
    scalar = value.item() if is_scalar(value) else value
    is_number = isinstance(scalar, int | float) and not isinstance(scalar, bool)
    if scalar is None or (is_number and math.isfinite(scalar)):
        return scalar
    return str(scalar).encode("utf-8", "replace").decode()


def is_scalar(value: Any) -> bool:
    """Whether it is a 0-dimensional tensor or array, known by its shape so that neither torch nor numpy is needed."""
    return getattr(value, "ndim", None) == 0 and hasattr(value, "item")
