"""The result of a check: followed or not, how near the response came, and why."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Judgment:
    """The outcome of one instruction.

    Attributes:
        followed: the verdict, the only part that the published accuracies use.
        closeness: in [0, 1]; 1 if and only if the instruction is followed.
        note: the reason in a few words.
    """

    followed: bool
    closeness: float
    note: str


def judged(followed: bool, note: str, closeness: float = 0.0) -> Judgment:
    """A judgment whose `closeness` matters only where the instruction is not followed."""
    return Judgment(followed, 1.0 if followed else closeness, note)


def counted(found: int, relation: str, wanted: int, what: str) -> Judgment:
    """Compares a count: `relation` is 'at least', 'less than' or 'exactly'.

    With a the allowed count nearest to the found count c, closeness = (1 + min(a, c)) / (1 + max(a, c)). The ones
    grade the way to "none at all" too: one comma too many is nearer than ten.
    """
    nearest = {"at least": max(found, wanted), "less than": min(found, wanted - 1), "exactly": wanted}[relation]
    closeness = (1 + min(nearest, found)) / (1 + max(nearest, found))
    return judged(found == nearest, f"{found} {what}, asked for {relation} {wanted}", closeness)
