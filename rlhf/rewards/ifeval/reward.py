"""Rewards the share of a prompt's verifiable instructions that a response follows."""

from typing import Any

from rlhf.errors import RewardError
from rlhf.rewards.ifeval.judgment import Judgment
from rlhf.rewards.ifeval.registry import Instruction, read_instructions
from rlhf.rewards.turns import TextReward

CREDITS = ("fraction", "all", "partial")
NEAR = 0.5  # the most that an instruction earns that is not followed


class Instructions(TextReward):
    """Scores by the columns `instruction_id_list` and `kwargs`, as IFEval has them; in [0, 1].

    `credit` says what an instruction that is followed, or not, counts:

    * `fraction`: the share of the instructions that are followed;
    * `all`: 1 if all of them are, else 0;
    * `partial`: the mean over the instructions, where one that is not followed earns .5 times its closeness.

    A row without the two columns has no score. Raises ValueError for another `credit`; RewardError, at the first call,
    for data without these columns and for an unknown instruction or argument. Fooled by any text with the right
    marks: nothing looks at what it says.
    """

    def __init__(self, *, credit: str = "fraction") -> None:
        if credit not in CREDITS:
            raise ValueError(f"credit {credit!r} must be one of {', '.join(CREDITS)}")
        self.credit = credit

    def __call__(
        self,
        prompts: list[str],
        completions: list[str],
        instruction_id_list: list[Any] | None = None,
        kwargs: list[Any] | None = None,
        **columns: list[Any],
    ) -> list[float | None]:
        if instruction_id_list is None or kwargs is None:
            raise RewardError("the data needs the columns 'instruction_id_list' and 'kwargs'")
        return [
            None if ids is None and arguments is None else self._score(_evaluate(ids, arguments, completion))
            for completion, ids, arguments in zip(completions, instruction_id_list, kwargs, strict=True)
        ]

    def explain(
        self, prompt: str, completion: str, *, instruction_id_list: Any = None, kwargs: Any = None, **columns: Any
    ) -> str:
        if instruction_id_list is None and kwargs is None:
            return "does not apply: the row has no instructions"
        return "\n".join(
            f"{'followed' if judgment.followed else 'not followed'}: {instruction.id} ({judgment.note})"
            for instruction, judgment in _evaluate(instruction_id_list, kwargs, completion)
        )

    def _score(self, judged: list[tuple[Instruction, Judgment]]) -> float:
        outcomes = [judgment for _, judgment in judged]
        if self.credit == "all":
            return float(all(outcome.followed for outcome in outcomes))
        near = NEAR if self.credit == "partial" else 0.0
        return sum(1.0 if o.followed else near * o.closeness for o in outcomes) / len(outcomes)


def _evaluate(ids: Any, kwargs: Any, response: str) -> list[tuple[Instruction, Judgment]]:
    return [(instruction, instruction.evaluate(response)) for instruction in read_instructions(ids, kwargs)]
