"""Static React reward: what can be seen in the code without running it."""

from dataclasses import dataclass
from typing import Any

from rlhf.rewards.code_text import code_range
from rlhf.rewards.contract import Item
from rlhf.rewards.react.outline import Outline
from rlhf.rewards.react.parses import ErrorPenalty, describe_error
from rlhf.rewards.react.pieces import Piece
from rlhf.rewards.react.syntax import Syntax
from rlhf.rewards.turns import TextReward

PARSES, COMPONENT, EXPORTED, HOOKS, KEYS = 0.40, 0.30, 0.15, 0.10, 0.05


@dataclass(frozen=True)
class StaticParts:
    """The parts of `ReactStatic`, each earned in full or not at all, and the evidence."""

    syntax: Syntax
    has_jsx: bool
    component: bool
    exported: bool
    misplaced_hooks: list[Piece]
    unkeyed: list[Piece]

    @property
    def parses(self) -> bool:
        return self.has_jsx and self.syntax.parses

    @property
    def score(self) -> float:
        hooks = self.component and not self.misplaced_hooks
        keys = self.component and not self.unkeyed
        score = PARSES * self.parses + COMPONENT * self.component + EXPORTED * self.exported
        return round(score + HOOKS * hooks + KEYS * keys, 2)


class ReactStatic(TextReward):
    """`.40 [parses, with JSX] + .30 [a component] + .15 [exported] + .10 [hook rules] + .05 [list keys]`.

    The last three need a component. Where the code does not parse, they go by what tree-sitter could
    recover, so the score is at most 0.60. Code fences are removed. With `error_penalty` (at most 0) code that
    does not parse also carries that amount on the character at which the parser fails. Fooled by any correct
    component, also one that has nothing to do with the prompt.
    """

    def __init__(self, *, error_penalty: float = 0.0) -> None:
        self.penalty = ErrorPenalty(error_penalty)

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[Item]:
        return [self._score(completion) for completion in completions]

    def _score(self, completion: str) -> Item:
        start, end = code_range(completion)
        parts = static_parts(completion[start:end])
        return self.penalty.attach(parts.score, completion, start, parts.syntax)

    def explain(self, prompt: str, completion: str, **columns: Any) -> str:
        start, end = code_range(completion)
        parts = static_parts(completion[start:end])
        syntax = describe_error(completion, start, parts.syntax) + ("" if parts.has_jsx else ", has no JSX")
        lines = [_line(PARSES, parts.parses, syntax)]
        if not parts.component:
            return "\n".join([*lines, _line(COMPONENT, False, "no component is defined")])
        hooks = ", ".join(sorted({hook.field_text("function") for hook in parts.misplaced_hooks}))
        lines += [
            _line(COMPONENT, True, "a component is defined"),
            _line(EXPORTED, parts.exported, "exported" if parts.exported else "not exported"),
            _line(HOOKS, not hooks, f"hooks misplaced: {hooks}" if hooks else "hook rules kept"),
            _line(KEYS, not parts.unkeyed, f"{len(parts.unkeyed)} list items without key"),
        ]
        return "\n".join(lines)


def static_parts(code: str) -> StaticParts:
    """Look at `code`, which is free of fences."""
    syntax = Syntax(code)
    outline = Outline(syntax.root)
    component = bool(outline.components)
    return StaticParts(
        syntax=syntax,
        has_jsx=bool(outline.of_kind("jsx")),
        component=component,
        exported=component and outline.exports_a_component(),
        misplaced_hooks=outline.misplaced_hooks(),
        unkeyed=outline.elements_without_key(),
    )


def _line(points: float, earned: bool, reason: str) -> str:
    return f"{points if earned else 0.0:.2f} of {points:.2f}: {reason}"
