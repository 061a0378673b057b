"""What an answer must keep to: for each kind of instruction its arguments and several wordings of our own."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from instruction_data.tasks import Form
from instruction_data.wordings import WORDINGS

LANGUAGES = {"de": "German", "es": "Spanish", "fr": "French", "it": "Italian", "pt": "Portuguese", "nl": "Dutch",
             "fi": "Finnish", "vi": "Vietnamese", "ru": "Russian", "hi": "Hindi",
             "ar": "Arabic", "ko": "Korean"}  # fmt: skip
COMMON_LETTERS, RARE_LETTERS = "aeinorst", "bcfgkmpvwy"
OPENERS = ("today", "still", "maybe", "sometimes", "nobody", "once", "finally", "imagine", "every", "perhaps")
ENDINGS = ("That is all for now.", "Now it is your turn.", "Who would have guessed?", "Thank you for your time.",
           "And so it goes.", "Let me hear what you think.", "Keep it in mind.", "Good luck!", "What do you say?",
           "The rest is up to you.", "I hope this is of use.", "Until next week!")  # fmt: skip
SECTION_WORDS = ("Section", "Part", "Step", "Day", "Chapter", "SECTION")
SMALL = ("one", "two", "three", "four", "five", "six")


@dataclass(frozen=True)
class Constraint:
    """One instruction: its kind, its arguments as the data holds them, and how the prompt says it."""

    kind: str
    kwargs: dict[str, Any]
    text: str


def draw(kind: str, form: Form, rng: Random) -> Constraint:
    """An instruction of a kind, with arguments that suit the form."""
    kwargs, slots = DRAWS[kind](form, rng)
    return Constraint(kind, kwargs, rng.choice(WORDINGS[_wording(kind, kwargs)]).format(**slots))


def _wording(kind: str, kwargs: dict[str, Any]) -> str:
    """The key of its wordings: counts that may be compared either way have two sets."""
    relation = next((value for key, value in kwargs.items() if key.endswith("relation")), None)
    return f"{kind} {relation}" if relation else kind


Draw = Callable[[Form, Random], tuple[dict[str, Any], dict[str, Any]]]


def _nothing(form: Form, rng: Random) -> tuple[dict[str, Any], dict[str, Any]]:
    return {}, {}


def _exactly(argument: str, choices: range) -> Draw:
    def draw_count(form: Form, rng: Random) -> tuple[dict[str, Any], dict[str, Any]]:
        n = rng.choice(choices)
        return {argument: n}, {"n": n, "number": SMALL[n - 1], "s": _plural(n)}

    return draw_count


def _compared(argument: str, relation: str, at_least: tuple[int, ...], less_than: tuple[int, ...]) -> Draw:
    def draw_count(form: Form, rng: Random) -> tuple[dict[str, Any], dict[str, Any]]:
        how, choices = rng.choice((("at least", at_least), ("less than", less_than)))
        n = rng.choice(choices)
        return {argument: n, relation: how}, {"n": n, "s": _plural(n), "most": n - 1, "plural_most": _plural(n - 1)}

    return draw_count


def _existence(form: Form, rng: Random) -> tuple[dict[str, Any], dict[str, Any]]:
    words = rng.sample(form.words, rng.choice((1, 2, 2, 3)))
    return {"keywords": words}, {"words": _listed(words, "and"), "s": _plural(len(words))}


def _forbidden(form: Form, rng: Random) -> tuple[dict[str, Any], dict[str, Any]]:
    words = rng.sample(form.words, rng.choice((1, 2, 2, 3)))
    return {"forbidden_words": words}, {"words": _listed(words, "or"), "s": _plural(len(words))}


def _frequency(form: Form, rng: Random) -> tuple[dict[str, Any], dict[str, Any]]:
    counts, slots = _compared("frequency", "relation", (2, 2, 3, 3, 4), (2, 3, 4))(form, rng)
    word = rng.choice(form.words)
    return {"keyword": word, **counts}, {"word": word, **slots}


def _letter(form: Form, rng: Random) -> tuple[dict[str, Any], dict[str, Any]]:
    rare = rng.random() < 0.5
    ranges = ((2, 3, 4, 5), (2, 3, 4, 5, 6)) if rare else ((5, 8, 10, 12, 15, 20), (6, 8, 10, 12))
    counts, slots = _compared("let_frequency", "let_relation", *ranges)(form, rng)
    letter = rng.choice(RARE_LETTERS if rare else COMMON_LETTERS)
    return {"letter": letter, **counts}, {"letter": letter, **slots}


def _language(form: Form, rng: Random) -> tuple[dict[str, Any], dict[str, Any]]:
    code = rng.choice(list(LANGUAGES))
    return {"language": code}, {"language": LANGUAGES[code]}


def _first_word(form: Form, rng: Random) -> tuple[dict[str, Any], dict[str, Any]]:
    n = rng.choice((2, 2, 3, 3, 4))
    nth, word = rng.randint(1, n), rng.choice(OPENERS)
    kwargs = {"num_paragraphs": n, "nth_paragraph": nth, "first_word": word}
    return kwargs, {"n": n, "number": SMALL[n - 1], "nth": nth, "word": word}


def _sections(form: Form, rng: Random) -> tuple[dict[str, Any], dict[str, Any]]:
    n, word = rng.choice((2, 2, 3, 3, 4)), rng.choice(SECTION_WORDS)
    return {"section_spliter": word, "num_sections": n}, {"n": n, "number": SMALL[n - 1], "word": word}


def _postscript(form: Form, rng: Random) -> tuple[dict[str, Any], dict[str, Any]]:
    marker = rng.choice(("P.S.", "P.S.", "P.P.S"))
    return {"postscript_marker": marker}, {"marker": marker}


def _ending(form: Form, rng: Random) -> tuple[dict[str, Any], dict[str, Any]]:
    phrase = rng.choice(ENDINGS)
    return {"end_phrase": phrase}, {"phrase": phrase}


def _plural(number: int) -> str:
    return "" if number == 1 else "s"


def _listed(words: list[str], link: str) -> str:
    quoted = [f'"{word}"' for word in words]
    return f" {link} ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else quoted[0]


DRAWS: dict[str, Draw] = {
    "change_case:capital_word_frequency": _compared(
        "capital_frequency", "capital_relation", (1, 2, 2, 3, 4, 5), (3, 4, 5, 6)
    ),
    "change_case:english_capital": _nothing,
    "change_case:english_lowercase": _nothing,
    "combination:two_responses": _nothing,
    "detectable_content:number_placeholders": _exactly("num_placeholders", range(1, 5)),
    "detectable_content:postscript": _postscript,
    "detectable_format:json_format": _nothing,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:number_bullet_lists": _exactly("num_bullets", range(2, 7)),
    "detectable_format:number_highlighted_sections": _exactly("num_highlights", range(1, 5)),
    "detectable_format:title": _nothing,
    "keywords:existence": _existence,
    "keywords:forbidden_words": _forbidden,
    "keywords:frequency": _frequency,
    "keywords:letter_frequency": _letter,
    "language:response_language": _language,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "length_constraints:number_paragraphs": _exactly("num_paragraphs", range(2, 5)),
    "length_constraints:number_sentences": _compared("num_sentences", "relation", (2, 3, 4, 5, 6, 8), (3, 4, 5, 6)),
    "length_constraints:number_words": _compared(
        "num_words", "relation", (20, 30, 40, 50, 60, 80, 100, 120, 150), (20, 30, 40, 50, 60, 80, 100)
    ),
    "punctuation:no_comma": _nothing,
    "startend:end_checker": _ending,
    "startend:quotation": _nothing,
}
ALONE = ("combination:repeat_prompt", "detectable_format:constrained_response")  # each with a wording of its own
