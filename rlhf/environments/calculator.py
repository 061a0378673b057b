"""Arithmetic with a tool: the model may call a calculator, in the format that its chat template has for tools."""

import json
import math
import random
import re
from typing import Any, Literal

from rlhf.data.messages import Message
from rlhf.environments.arithmetic import compute
from rlhf.environments.contract import Messages, Step

TOOL = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Computes an arithmetic expression.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string", "description": "numbers, parentheses, + - * / // % **"}},
            "required": ["expression"],
        },
    },
}
IN_WORDS = (
    "You can use a calculator. To call it, answer with nothing but\n"
    '<tool_call>{"name": "calculator", "arguments": {"expression": "(2 + 3) * 4"}}</tool_call>\n'
    "When you know the result, answer with the number."
)
TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


class Calculator:
    """A question, calls of the calculator, and an answer, of which the last number counts: 1 if it is right, else 0.

    A call costs `cost`; one that cannot be read or computed is answered with what is wrong. The formats of Hermes,
    Qwen and SmolLM (`<tool_call>{...}</tool_call>`) and of Llama 3 (a bare JSON object, with `parameters`) are read.

    Args:
        explained_in: template puts the tool into the chat template, which has to know tools, and answers in the role
            tool; words explains it in a system turn and answers as the user, for every other template.
        largest: Of the numbers in questions of its own, asked where the data has no prompt. With data the answer is
            the column `reference`, the last number in it.
        turns: Of the model, the answer included.
        cost: Of each call.
    """

    def __init__(
        self,
        *,
        explained_in: Literal["words", "template"] = "words",
        largest: int = 99,
        turns: int = 4,
        cost: float = 0.0,
    ) -> None:
        if explained_in not in ("words", "template"):
            raise ValueError(f"explained_in is {explained_in!r}; it must be words or template")
        if largest < 2 or turns < 1 or not 0 <= cost < 1:
            raise ValueError(
                f"largest {largest} must be at least 2, turns {turns} at least 1, and cost {cost} in [0, 1)"
            )
        self.in_template = explained_in == "template"
        self.tools = [TOOL] if self.in_template else None
        self.largest, self.turns, self.cost = largest, turns, cost
        self.answer, self.said, self.calls = 0.0, 0, 0

    def reset(self, seed: int, prompt: Messages | None = None, reference: Any = None) -> list[Message]:
        if prompt is None:
            prompt, reference = self.question(random.Random(seed))
        found = last_number(str(reference))
        if found is None:
            raise ValueError(f"the reference {reference!r:.60} holds no number to compare with")
        self.answer = found
        asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        return asked if self.in_template else [{"role": "system", "content": IN_WORDS}, *asked]

    def question(self, rng: random.Random) -> tuple[str, str]:
        """Three numbers, two operations, and what they come to."""
        a, b, c = (rng.randint(2, self.largest) for _ in range(3))
        first, second = rng.choice("+-*"), rng.choice("+-*")
        expression = f"({a} {first} {b}) {second} {c}"
        return f"What is {expression}?", str(compute(expression))

    def step(self, text: str) -> Step:
        self.said += 1
        call = tool_call(text)
        if call is None:
            found = last_number(text)
            is_right = found is not None and math.isclose(found, self.answer, rel_tol=1e-6, abs_tol=1e-6)
            return Step("", float(is_right), True, self.metrics(is_right))
        self.calls += 1
        try:
            result = f"{compute(expression_of(call)):.12g}"
        except ValueError as error:
            result = f"error: {error}"
        role = "tool" if self.in_template else "user"
        answer = [{"role": role, "content": result}]
        return Step(answer, -self.cost, self.said == self.turns, self.metrics(False))

    def metrics(self, is_right: bool) -> dict[str, float]:
        """Whether the answer is right, and how often the tool was called."""
        return {"right": float(is_right), "calls": float(self.calls)}


def tool_call(text: str) -> str | None:
    """The JSON of the first call in a text, whole or not; None where it calls nothing."""
    tagged = TAGGED.search(text)
    if tagged:
        return tagged[1].strip()
    bare = text.strip()
    return bare if bare.startswith("{") and '"name"' in bare else None


def expression_of(call: str) -> str:
    """What a call wants computed; raises ValueError, in words for the model, where it does not say so."""
    try:
        read = json.loads(call)
    except (ValueError, RecursionError):
        raise ValueError("the call is not JSON") from None
    read = read[0] if isinstance(read, list) and read else read
    if not isinstance(read, dict) or read.get("name") != "calculator":
        raise ValueError("the only tool is called calculator")
    arguments = read.get("arguments", read.get("parameters"))
    expression = arguments.get("expression") if isinstance(arguments, dict) else None
    if not isinstance(expression, str):
        raise ValueError("the call needs arguments with an expression, a string")
    return expression


def last_number(text: str) -> float | None:
    """The last number in a text, thousands separators taken out."""
    found = NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None
