"""Instructions about the number of words, sentences and paragraphs."""

import re

from rlhf.errors import RewardError
from rlhf.rewards.ifeval.arguments import WORD_ENDS
from rlhf.rewards.ifeval.judgment import Judgment, counted, judged
from rlhf.rewards.ifeval.language import sentences


def number_words(response: str, *, num_words: int, relation: str) -> Judgment:
    """How many runs of letters, digits and underscores there are: "don't" holds two."""
    return counted(len(re.findall(r"\w+", response)), relation, num_words, "words")


def number_sentences(response: str, *, num_sentences: int, relation: str) -> Judgment:
    """How many sentences Punkt finds."""
    return counted(len(sentences(response)), relation, num_sentences, "sentences")


def number_paragraphs(response: str, *, num_paragraphs: int) -> Judgment:
    """How many paragraphs there are between dividers `***`; an empty one in the middle fails the instruction."""
    paragraphs = parts(response, "***")
    if paragraphs is None:
        return judged(False, "nothing between two dividers ***")
    return counted(len(paragraphs), "exactly", num_paragraphs, "paragraphs")


def nth_paragraph_first_word(response: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> Judgment:
    """The number of paragraphs between blank lines, and the word that one of them starts with, in any case.

    Blank paragraphs are not counted, but they are numbered when the nth is looked up, as published. Closeness is half
    that of the count and half the word. Raises RewardError for a paragraph beyond the last.
    """
    if nth_paragraph > num_paragraphs:
        raise RewardError(
            f"nth_paragraph {nth_paragraph} must be at most num_paragraphs {num_paragraphs}; nothing could follow that"
        )
    paragraphs = response.split("\n\n")
    count = counted(sum(bool(p.strip()) for p in paragraphs), "exactly", num_paragraphs, "paragraphs")
    starts_with = _first_word(paragraphs[nth_paragraph - 1]) if nth_paragraph <= len(paragraphs) else ""
    right_word = starts_with == first_word.lower()
    note = f"{count.note}; paragraph {nth_paragraph} starts with {starts_with!r}, asked for {first_word!r}"
    return judged(count.followed and right_word, note, (count.closeness + right_word) / 2)


def parts(response: str, divider: str) -> list[str] | None:
    """What stands between dividers, without an empty first or last part; None if another part is empty."""
    first, *rest = (part.strip() for part in response.split(divider))
    if not all(rest[:-1]):
        return None
    return [part for part in [first, *rest] if part]


def _first_word(paragraph: str) -> str:
    word = paragraph.split()[0].lstrip("'").lstrip('"') if paragraph.strip() else ""
    end = next((at for at, character in enumerate(word) if character in WORD_ENDS), len(word))
    return word[:end].lower()
