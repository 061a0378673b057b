"""What a pocket calculator computes, and nothing else: no names, no calls, no numbers without end."""

import ast
import math
import operator
from collections.abc import Callable

LONGEST, LARGEST_EXPONENT = 200, 64
Number = int | float
OPERATIONS: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
}  # fmt: skip


def compute(expression: str) -> Number:
    """The value of an expression of numbers, parentheses and + - * / // % **.

    Raises ValueError, in words for the one who wrote it, for anything else.
    """
    if len(expression) > LONGEST:
        raise ValueError(f"the expression has {len(expression)} characters, more than {LONGEST}")
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"{expression!r} is no expression") from None
    except ZeroDivisionError:
        raise ValueError("division by zero") from None
    except OverflowError:
        raise ValueError("the result is too large") from None
    if isinstance(value, complex):
        raise ValueError("the result is not a real number")
    if not math.isfinite(value):
        raise ValueError("the result is too large")
    return value


def _value(node: ast.expr) -> Number:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value  # type: ignore[return-value]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow) and abs(right) > LARGEST_EXPONENT:
            raise ValueError(f"the exponent {right} is larger than {LARGEST_EXPONENT}")
        return OPERATIONS[type(node.op)](left, right)
    raise ValueError("only numbers, parentheses and + - * / // % ** are allowed")
