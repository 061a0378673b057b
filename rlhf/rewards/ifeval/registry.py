"""The 25 kinds of verifiable instructions of IFEval (Zhou et al. 2023, arXiv:2311.07911), by their published names."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.errors import RewardError
from rlhf.rewards.contract import shorten
from rlhf.rewards.ifeval import arguments as a
from rlhf.rewards.ifeval import formats, keywords, lengths, whole
from rlhf.rewards.ifeval.judgment import Judgment, judged


@dataclass(frozen=True)
class Kind:
    """A check `check(response, **arguments)`, and for each of its arguments the function that reads it."""

    check: Callable[..., Judgment]
    arguments: Mapping[str, Callable[[Any], Any]]


KINDS: dict[str, Kind] = {
    "change_case:capital_word_frequency": Kind(
        whole.capital_word_frequency, {"capital_frequency": a.count, "capital_relation": a.relation}
    ),
    "change_case:english_capital": Kind(whole.english_capital, {}),
    "change_case:english_lowercase": Kind(whole.english_lowercase, {}),
    "combination:repeat_prompt": Kind(whole.repeat_prompt, {"prompt_to_repeat": a.text}),
    "combination:two_responses": Kind(whole.two_responses, {}),
    "detectable_content:number_placeholders": Kind(formats.number_placeholders, {"num_placeholders": a.count}),
    "detectable_content:postscript": Kind(formats.postscript, {"postscript_marker": a.text}),
    "detectable_format:constrained_response": Kind(formats.constrained_response, {}),
    "detectable_format:json_format": Kind(formats.json_format, {}),
    "detectable_format:multiple_sections": Kind(
        formats.multiple_sections, {"section_spliter": a.text, "num_sections": a.count}
    ),
    "detectable_format:number_bullet_lists": Kind(formats.number_bullet_lists, {"num_bullets": a.count}),
    "detectable_format:number_highlighted_sections": Kind(
        formats.number_highlighted_sections, {"num_highlights": a.count}
    ),
    "detectable_format:title": Kind(formats.title, {}),
    "keywords:existence": Kind(keywords.existence, {"keywords": a.texts}),
    "keywords:forbidden_words": Kind(keywords.forbidden_words, {"forbidden_words": a.texts}),
    "keywords:frequency": Kind(keywords.frequency, {"keyword": a.text, "frequency": a.count, "relation": a.relation}),
    "keywords:letter_frequency": Kind(
        keywords.letter_frequency, {"letter": a.character, "let_frequency": a.count, "let_relation": a.relation}
    ),
    "language:response_language": Kind(whole.response_language, {"language": a.language}),
    "length_constraints:nth_paragraph_first_word": Kind(
        lengths.nth_paragraph_first_word,
        {"num_paragraphs": a.count, "nth_paragraph": a.count, "first_word": a.word},
    ),
    "length_constraints:number_paragraphs": Kind(lengths.number_paragraphs, {"num_paragraphs": a.count}),
    "length_constraints:number_sentences": Kind(
        lengths.number_sentences, {"num_sentences": a.count, "relation": a.relation}
    ),
    "length_constraints:number_words": Kind(lengths.number_words, {"num_words": a.count, "relation": a.relation}),
    "punctuation:no_comma": Kind(whole.no_comma, {}),
    "startend:end_checker": Kind(whole.end_checker, {"end_phrase": a.phrase}),
    "startend:quotation": Kind(whole.quotation, {}),
}


@dataclass(frozen=True)
class Instruction:
    """One instruction of a prompt, with its arguments."""

    id: str
    arguments: Mapping[str, Any]

    def evaluate(self, response: str) -> Judgment:
        """What its check says; an empty response follows nothing."""
        if not response.strip():
            return judged(False, "the response is empty")
        try:
            return KINDS[self.id].check(response, **self.arguments)
        except RewardError as error:
            raise RewardError(f"instruction {self.id!r}: {error}") from error


def read_instructions(ids: Any, kwargs: Any) -> list[Instruction]:
    """The instructions of a row, from its columns `instruction_id_list` and `kwargs`.

    `kwargs` holds one object per instruction; arguments that are null count as absent. Raises RewardError for an
    unknown kind, and for an argument that is missing, unknown or out of its range.
    """
    if not _is_list(ids) or not ids or not all(isinstance(name, str) for name in ids):
        raise RewardError(f"instruction_id_list {_shown(ids)} must be a list of at least one name")
    if not _is_list(kwargs) or len(kwargs) != len(ids) or not all(isinstance(each, Mapping) for each in kwargs):
        raise RewardError(f"kwargs {_shown(kwargs)} must be a list of {len(ids)} objects, one per instruction")
    return [
        _read(name, {key: value for key, value in each.items() if value is not None})
        for name, each in zip(ids, kwargs, strict=True)
    ]


def _read(name: str, given: Mapping[str, Any]) -> Instruction:
    if name not in KINDS:
        near = difflib.get_close_matches(name, KINDS, n=1, cutoff=0)[0]
        raise RewardError(f"unknown instruction {shorten(name)}; the nearest of the {len(KINDS)} kinds is {near!r}")
    wanted = KINDS[name].arguments
    if given.keys() != wanted.keys():
        takes = ", ".join(wanted) or "no arguments"
        raise RewardError(f"instruction {name!r} takes {takes}, but is given {', '.join(given) or 'none'}")
    checked = {}
    for key, read in wanted.items():
        try:
            checked[key] = read(given[key])
        except ValueError as error:
            if isinstance(error, RewardError):
                raise
            raise RewardError(f"instruction {name!r}: {key} {_shown(given[key])} must be {error}") from error
    return Instruction(name, checked)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _shown(value: Any) -> str:
    return shorten(value) if isinstance(value, str) else shorten(repr(value)).strip("'\"")
