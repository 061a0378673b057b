"""Instructions about the response as a whole: its start and end, its language, its case, its commas."""

from itertools import takewhile

from rlhf.rewards.ifeval.judgment import Judgment, counted, judged
from rlhf.rewards.ifeval.language import language_of, words
from rlhf.rewards.ifeval.lengths import parts


def two_responses(response: str) -> Judgment:
    """Two different texts with `******` between them."""
    found = parts(response, "******")
    if found is None:
        return judged(False, "nothing between two dividers ******")
    if len(found) == 2 and found[0] == found[1]:
        return judged(False, "the same response twice", 0.5)
    return counted(len(found), "exactly", 2, "responses")


def repeat_prompt(response: str, *, prompt_to_repeat: str) -> Judgment:
    """The response starts with the prompt, in any case; closeness is the share of the prompt that it starts with."""
    wanted = prompt_to_repeat.strip().lower()
    pairs = zip(wanted, response.strip().lower(), strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return judged(same == len(wanted), f"repeats the first {same} of {len(wanted)} characters", same / len(wanted))


def end_checker(response: str, *, end_phrase: str) -> Judgment:
    """The response ends with the phrase, in any case, in quotation marks or not; elsewhere it earns closeness .5."""
    text, phrase = response.strip().strip('"').lower(), end_phrase.lower()
    return judged(text.endswith(phrase), f"ends with {text[-len(phrase) :]!r}", 0.5 if phrase in text else 0.0)


def quotation(response: str) -> Judgment:
    """The response stands between double quotation marks; closeness .5 for one of them."""
    text = response.strip()
    marks = (text[:1] == '"', text[-1:] == '"')
    note = f"{'starts' if marks[0] else 'does not start'} and {'ends' if marks[1] else 'does not end'} with a quote"
    return judged(all(marks) and len(text) > 1, note, 0.5 if any(marks) else 0.0)


def no_comma(response: str) -> Judgment:
    """No comma at all."""
    return counted(response.count(","), "less than", 1, "commas")


def response_language(response: str, *, language: str) -> Judgment:
    """The language is the one asked for; a text without a single letter sequence to judge by passes, as published."""
    found = language_of(response)
    return judged(found in (language, None), f"language {found or 'unknown'}, asked for {language}")


def english_capital(response: str) -> Judgment:
    """English without a small letter; closeness is the share of capitals among the letters, .5 in another language."""
    return _english(response, response.isupper(), "capitals", [c.isupper() for c in response if c.lower() != c.upper()])


def english_lowercase(response: str) -> Judgment:
    """English without a capital; closeness is the share of small letters among the letters, .5 in another language."""
    return _english(
        response, response.islower(), "small letters", [c.islower() for c in response if c.lower() != c.upper()]
    )


def capital_word_frequency(response: str, *, capital_frequency: int, capital_relation: str) -> Judgment:
    """How many words are in capitals; a hyphenated word is one, a contraction may be two."""
    found = sum(word.isupper() for word in words(response))
    return counted(found, capital_relation, capital_frequency, "words in capitals")


def _english(response: str, in_case: bool, case: str, right: list[bool]) -> Judgment:
    if not in_case:
        return judged(False, f"{sum(right)} of {len(right)} letters are {case}", sum(right) / max(1, len(right)))
    found = language_of(response)
    return judged(found in ("en", None), f"all letters are {case}; language {found or 'unknown'}", 0.5)
