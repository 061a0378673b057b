"""Constraints on configuration values; each failure is one line with name, value and constraint."""

import dataclasses
import math
import os
from typing import Any

from rlhf.errors import UserError

LARGEST = 2**32 - 1
"""No setting is a larger whole number: it is the largest seed that NumPy takes."""


def require(condition: bool, message: str) -> None:
    """Raise UserError(message) unless the condition holds."""
    if not condition:
        raise UserError(message)


def require_finite(config: Any, except_for: str = "") -> None:
    """Raise UserError for a number that is infinite, not a number, or beyond LARGEST; one field may be excepted."""
    for name in (field.name for field in dataclasses.fields(config) if field.name != except_for):
        value = getattr(config, name)
        if isinstance(value, float):
            require(math.isfinite(value), f"{name} is {value}; it must be a finite number")
        elif isinstance(value, int):
            shown = value if abs(value) < 10**20 else "a number of more than 20 digits"
            require(abs(value) <= LARGEST, f"{name} is {shown}; it must be at most {LARGEST}")


def require_positive(config: object, *names: str) -> None:
    """Raise UserError unless each named field is greater than 0."""
    for name in names:
        value = getattr(config, name)
        require(value is None or value > 0, f"{name} is {value}; it must be greater than 0")


def require_not_negative(config: object, *names: str) -> None:
    """Raise UserError unless each named field is at least 0."""
    for name in names:
        value = getattr(config, name)
        require(value is None or value >= 0, f"{name} is {value}; it must be at least 0")


def require_only_read(model: Any) -> None:
    """Raise UserError for a setting of a model that acts in training alone."""
    require(
        model is None or not model.gradient_checkpointing,
        "model.gradient_checkpointing is true, but nothing is trained here; leave it out",
    )


def require_another_file(output: str | None, source: str | None) -> None:
    """Raise UserError where `output` is the file that is read."""
    if output is not None and source is not None:
        require(
            os.path.realpath(output) != os.path.realpath(source),
            f"output is {output!r}, the file that is read; name another one",
        )


def require_paths(config: object, *names: str) -> None:
    """Raise UserError for a named field, where it is set, that cannot be the name of a file, folder or hub entry."""
    for name in names:
        value = getattr(config, name)
        require(
            value is None or (isinstance(value, str) and bool(value.strip()) and "\0" not in value),
            f"{name} is {value!r}; it must be a path or a hub name, as text",
        )


def require_divides(whole_name: str, whole: int, part_name: str, part: int) -> None:
    """Raise UserError unless part divides whole."""
    require(whole % part == 0, f"{whole_name} {whole} is not divisible by {part_name} {part}")
