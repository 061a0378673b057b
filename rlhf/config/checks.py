"""Constraints on configuration values; each failure is one line with name, value and constraint."""

from rlhf.errors import UserError


def require(condition: bool, message: str) -> None:
    """Raise UserError(message) unless the condition holds."""
    if not condition:
        raise UserError(message)


def require_positive(config: object, *names: str) -> None:
    """Raise UserError unless each named field is greater than 0."""
    for name in names:
        value = getattr(config, name)
        require(value is None or value > 0, f"{name} is {value}; it must be greater than 0")


def require_divides(whole_name: str, whole: int, part_name: str, part: int) -> None:
    """Raise UserError unless part divides whole."""
    require(whole % part == 0, f"{whole_name} {whole} is not divisible by {part_name} {part}")
