"""Instructions about words and letters that occur, or must not."""

import re
from collections.abc import Sequence

from rlhf.rewards.ifeval.judgment import Judgment, counted, judged


def existence(response: str, *, keywords: Sequence[str]) -> Judgment:
    """Every keyword occurs, in any case, also inside a longer word; closeness is the share that does."""
    missing = [word for word in keywords if not _occurrences(word, response)]
    return judged(not missing, f"missing: {', '.join(missing) or 'none'}", 1 - len(missing) / len(keywords))


def frequency(response: str, *, keyword: str, frequency: int, relation: str) -> Judgment:
    """How often the keyword occurs, in any case, also inside a longer word."""
    return counted(_occurrences(keyword, response), relation, frequency, f"times {keyword!r}")


def forbidden_words(response: str, *, forbidden_words: Sequence[str]) -> Judgment:
    """No forbidden word occurs as a whole word, in any case; closeness is the share that does not."""
    used = [w for w in forbidden_words if re.search(rf"(?<!\w){re.escape(w)}(?!\w)", response, re.IGNORECASE)]
    return judged(not used, f"forbidden, but used: {', '.join(used) or 'none'}", 1 - len(used) / len(forbidden_words))


def letter_frequency(response: str, *, letter: str, let_frequency: int, let_relation: str) -> Judgment:
    """How often a letter, or another character, occurs in any case."""
    return counted(response.lower().count(letter.lower()), let_relation, let_frequency, f"times {letter!r}")


def _occurrences(word: str, text: str) -> int:
    return len(re.findall(re.escape(word), text, re.IGNORECASE))
