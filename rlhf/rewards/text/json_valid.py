"""Rewards valid JSON, and JSON that keeps to a schema."""

import importlib
import json
from typing import Any, NoReturn

from rlhf.rewards.code_text import code_of
from rlhf.rewards.turns import TextReward


class JsonValid(TextReward):
    """0 if the completion is not JSON, else 1; with `schema` .5 for JSON that violates it and 1 if it does not.

    Code fences are removed; `NaN` and `Infinity` are not JSON. `schema` is a JSON Schema, checked with the
    library `jsonschema`. Raises ValueError if the library is missing or the schema itself is wrong. Fooled, without
    a schema, by `0`.
    """

    def __init__(self, *, schema: dict[str, Any] | None = None) -> None:
        self.validator = None if schema is None else _validator(schema)

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        return [self._evaluate(completion)[0] for completion in completions]

    def explain(self, prompt: str, completion: str, **columns: Any) -> str:
        return self._evaluate(completion)[1]

    def _evaluate(self, completion: str) -> tuple[float, str]:
        try:
            value = json.loads(code_of(completion), parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            return 0.0, f"not JSON: {error}"
        if self.validator is None:
            return 1.0, "valid JSON"
        try:
            violation = next(self.validator.iter_errors(value), None)
        except (RecursionError, OverflowError):
            return 0.5, "JSON, but too deeply nested, or a number too large, for the schema"
        return (
            (1.0, "JSON that keeps to the schema")
            if violation is None
            else (0.5, f"violates the schema: {violation.message}")
        )


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _validator(schema: dict[str, Any]) -> Any:
    try:
        jsonschema = importlib.import_module("jsonschema")
    except ImportError as error:
        raise ValueError("a schema needs the library jsonschema: pip install jsonschema") from error
    kind = jsonschema.validators.validator_for(schema)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"the schema is wrong: {error.message}") from error
    return kind(schema)
