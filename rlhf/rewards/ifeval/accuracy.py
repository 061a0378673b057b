"""The four accuracies of IFEval, from responses in a file or in memory."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.errors import RewardError, UserError
from rlhf.rewards.ifeval.registry import Instruction, read_instructions
from rlhf.runs.files import read_jsonl

COLUMNS = ["", "strict", "loose"]


@dataclass(frozen=True)
class Share:
    """How many of `total` are followed, strictly and loosely."""

    total: int
    strict: float
    loose: float

    @classmethod
    def of(cls, outcomes: Sequence[tuple[bool, bool]]) -> "Share":
        """The shares of at least one pair (strict, loose)."""
        strict, loose = zip(*outcomes, strict=True)
        return cls(len(outcomes), sum(strict) / len(outcomes), sum(loose) / len(outcomes))


@dataclass(frozen=True)
class Accuracy:
    """Accuracies as published, in [0, 1].

    Attributes:
        prompts: share of the prompts whose instructions are all followed.
        instructions: share of all instructions that are followed.
        kinds: the same for the instructions of each kind, by name.
    """

    prompts: Share
    instructions: Share
    kinds: dict[str, Share]

    @property
    def strict(self) -> float:
        """The average of prompt and instruction accuracy, strict: the one number that model cards give."""
        return (self.prompts.strict + self.instructions.strict) / 2

    @property
    def loose(self) -> float:
        """The average of prompt and instruction accuracy, loose."""
        return (self.prompts.loose + self.instructions.loose) / 2


def follows(instruction: Instruction, response: str) -> bool:
    """Strictly: the response itself does."""
    return instruction.evaluate(response).followed


def follows_loosely(instruction: Instruction, response: str) -> bool:
    """The response does, or one of seven variants: without its first or last line, or both, each also without `*`."""
    return any(follows(instruction, variant) for variant in loose_variants(response))


def loose_variants(response: str) -> list[str]:
    """The response itself and its seven variants."""
    lines = response.split("\n")
    shortened = ["\n".join(kept).strip() for kept in (lines[1:], lines[:-1], lines[1:-1])]
    return [text for whole in (response, *shortened) for text in (whole, whole.replace("*", ""))]


def measure_accuracy(rows: Iterable[Mapping[str, Any]]) -> Accuracy:
    """The accuracies of rows with `response`, `instruction_id_list` and `kwargs`.

    Raises RewardError as `read_instructions` does, with the number of the row, and for no row at all.
    """
    prompts: list[tuple[bool, bool]] = []
    kinds: dict[str, list[tuple[bool, bool]]] = {}
    for number, row in enumerate(rows, start=1):
        try:
            outcomes = _outcomes(row)
        except RewardError as error:
            raise RewardError(f"row {number}: {error}") from error
        prompts.append((all(strict for _, (strict, _) in outcomes), all(loose for _, (_, loose) in outcomes)))
        for name, outcome in outcomes:
            kinds.setdefault(name, []).append(outcome)
    if not prompts:
        raise RewardError("there are no rows; accuracies need at least one")
    instructions = [outcome for outcomes in kinds.values() for outcome in outcomes]
    by_kind = {name: Share.of(kinds[name]) for name in sorted(kinds)}
    return Accuracy(Share.of(prompts), Share.of(instructions), by_kind)


def _outcomes(row: Mapping[str, Any]) -> list[tuple[str, tuple[bool, bool]]]:
    """For each instruction of a row its name, and whether it is followed strictly and loosely."""
    if not isinstance(row, Mapping):
        raise RewardError(f"the row is {type(row).__name__}; it must be an object")
    response = row.get("response")
    if not isinstance(response, str):
        raise RewardError(f"'response' is {type(response).__name__}; it must be text")
    instructions = read_instructions(row.get("instruction_id_list"), row.get("kwargs"))
    return [(each.id, (follows(each, response), follows_loosely(each, response))) for each in instructions]


def measure_file(file: Path) -> Accuracy:
    """The accuracies of a JSON-lines file of such rows; raises UserError that names the file and the row."""
    try:
        return measure_accuracy(read_jsonl(file))
    except FileNotFoundError:
        raise UserError(f"{file} does not exist; it must hold responses, one JSON object a line") from None
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error


def accuracy_table(accuracy: Accuracy) -> list[list[str]]:
    """Rows under `COLUMNS` for a table: prompts, instructions, their average, then each kind; in percent."""
    shares = {
        f"prompts ({accuracy.prompts.total})": accuracy.prompts,
        f"instructions ({accuracy.instructions.total})": accuracy.instructions,
    }
    kinds = {f"{name} ({share.total})": share for name, share in accuracy.kinds.items()}
    average = ["average of both", _percent(accuracy.strict), _percent(accuracy.loose)]
    return [*_rows(shares), average, *_rows(kinds)]


def _rows(shares: Mapping[str, Share]) -> list[list[str]]:
    return [[name, _percent(share.strict), _percent(share.loose)] for name, share in shares.items()]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
