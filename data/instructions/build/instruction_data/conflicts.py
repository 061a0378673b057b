"""Which instructions contradict each other."""

import re
from collections.abc import Sequence

from instruction_data.constraints import Constraint

CAPITAL, LOWERCASE = "change_case:english_capital", "change_case:english_lowercase"
CAPITAL_WORDS, TWO = "change_case:capital_word_frequency", "combination:two_responses"
PLACEHOLDERS, POSTSCRIPT = "detectable_content:number_placeholders", "detectable_content:postscript"
JSON, SECTIONS = "detectable_format:json_format", "detectable_format:multiple_sections"
BULLETS, HIGHLIGHTS = "detectable_format:number_bullet_lists", "detectable_format:number_highlighted_sections"
TITLE, EXISTENCE, FORBIDDEN = "detectable_format:title", "keywords:existence", "keywords:forbidden_words"
FREQUENCY, LETTER, LANGUAGE = "keywords:frequency", "keywords:letter_frequency", "language:response_language"
NTH, PARAGRAPHS = "length_constraints:nth_paragraph_first_word", "length_constraints:number_paragraphs"
SENTENCES, WORDS = "length_constraints:number_sentences", "length_constraints:number_words"
NO_COMMA, END, QUOTATION = "punctuation:no_comma", "startend:end_checker", "startend:quotation"

STRUCTURES = {BULLETS, SECTIONS, PARAGRAPHS, NTH, TWO, JSON}  # each shapes the text as a whole: one is enough
FITS_JSON = {EXISTENCE, FORBIDDEN, FREQUENCY, WORDS}
FITS_TWO = {EXISTENCE, FORBIDDEN, NO_COMMA, TITLE, LANGUAGE, CAPITAL, LOWERCASE, WORDS}
FITS_LANGUAGE = {NO_COMMA, WORDS, PARAGRAPHS, BULLETS, QUOTATION, HIGHLIGHTS, TWO}
FITS_FEW_LETTERS = {NO_COMMA, TITLE, QUOTATION, FORBIDDEN, CAPITAL, LOWERCASE}
WORDS_NEEDED = {BULLETS: 20, SECTIONS: 20, PARAGRAPHS: 20, NTH: 20, TWO: 15, JSON: 10, SENTENCES: 20, LETTER: 25,
                FREQUENCY: 15, EXISTENCE: 10, END: 10, PLACEHOLDERS: 10, POSTSCRIPT: 10, HIGHLIGHTS: 10,
                CAPITAL_WORDS: 10}  # fmt: skip
PAIRS = {
    frozenset(pair)
    for pair in (
        (CAPITAL, LOWERCASE), (CAPITAL, CAPITAL_WORDS), (LOWERCASE, CAPITAL_WORDS), (CAPITAL, SECTIONS),
        (LOWERCASE, SECTIONS), (LOWERCASE, POSTSCRIPT), (LOWERCASE, END), (CAPITAL, END), (QUOTATION, TITLE),
        (QUOTATION, END), (QUOTATION, NTH), (QUOTATION, POSTSCRIPT), (END, POSTSCRIPT), (PARAGRAPHS, HIGHLIGHTS),
        (CAPITAL_WORDS, POSTSCRIPT), (TITLE, NTH),
    )
}  # fmt: skip


def contradict(constraints: Sequence[Constraint]) -> bool:
    """True if no answer, or only a contrived one, can follow all of them."""
    kinds = [constraint.kind for constraint in constraints]
    if len(set(kinds)) < len(kinds) or len(STRUCTURES.intersection(kinds)) > 1:
        return True
    if any(frozenset((a, b)) in PAIRS for a in kinds for b in kinds):
        return True
    return any(not _fits(each, [o for o in constraints if o is not each]) for each in constraints)


def _fits(constraint: Constraint, others: list[Constraint]) -> bool:
    """Whether one constraint leaves room for the others."""
    kind, kwargs = constraint.kind, constraint.kwargs
    kinds = {other.kind for other in others}
    if any(_named(constraint) & _named(other) for other in others):
        return False
    if kind == JSON:
        return kinds <= FITS_JSON
    if kind == TWO:
        return kinds <= FITS_TWO
    if kind == LANGUAGE:
        return kinds <= FITS_LANGUAGE
    if kind == SENTENCES:
        few = kwargs["relation"] == "less than"
        return not kinds & STRUCTURES and not (few and (POSTSCRIPT in kinds or _asks_for_words(others, 60)))
    if kind == LETTER and kwargs["let_relation"] == "less than":
        return kinds <= FITS_FEW_LETTERS
    if kind == CAPITAL_WORDS:
        return all(other.kwargs.get("section_spliter") != "SECTION" for other in others)
    if kind == WORDS and kwargs["relation"] == "less than":
        return sum(WORDS_NEEDED.get(other, 0) for other in kinds) < kwargs["num_words"]
    return True


def _asks_for_words(constraints: list[Constraint], number: int) -> bool:
    return any(
        other.kind == WORDS and other.kwargs["relation"] == "at least" and other.kwargs["num_words"] > number
        for other in constraints
    )


def _named(constraint: Constraint) -> set[str]:
    """The words that an instruction asks for or forbids: no two instructions may name the same."""
    kwargs = constraint.kwargs
    texts = [kwargs.get(name, "") for name in ("keyword", "first_word", "end_phrase", "section_spliter")]
    return {
        word.lower()
        for text in [*texts, *kwargs.get("keywords", ()), *kwargs.get("forbidden_words", ())]
        for word in re.findall(r"\w+", text)
    }
