"""Instructions about marks in the text: bullets, highlights, sections, titles, placeholders, JSON."""

import json
import re

from rlhf.rewards.ifeval.judgment import Judgment, counted, judged

ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
FENCES = ("```json", "```Json", "```JSON", "```")
POSTSCRIPTS = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}


def number_bullet_lists(response: str, *, num_bullets: int) -> Judgment:
    """How many lines start with `-`, or with one `*` and something else behind it."""
    # White space up to the end of the line only: beyond it, a response of blank lines would take quadratic time.
    stars = re.findall(r"^[^\S\n]*\*[^*].*", response, re.MULTILINE)
    dashes = re.findall(r"^[^\S\n]*-", response, re.MULTILINE)
    return counted(len(stars) + len(dashes), "exactly", num_bullets, "bullets")


def number_highlighted_sections(response: str, *, num_highlights: int) -> Judgment:
    """How many stretches of a line stand between `*` and `*`, or `**` and `**`."""
    marked = re.findall(r"\*([^*\n]*)\*", response) + re.findall(r"\*\*([^*\n]*)\*\*", response)
    return counted(sum(bool(text.strip()) for text in marked), "at least", num_highlights, "highlights")


def multiple_sections(response: str, *, section_spliter: str, num_sections: int) -> Judgment:
    """How often the word that opens a section occurs with a number behind it: `Section 1`."""
    found = re.findall(rf"{re.escape(section_spliter)}\s?\d+", response)
    return counted(len(found), "at least", num_sections, f"times {section_spliter!r} with a number")


def title(response: str) -> Judgment:
    """Something stands between `<<` and `>>` on one line."""
    titles = [text.lstrip("<").rstrip(">").strip() for text in re.findall(r"<<([^\n]+)>>", response)]
    return judged(any(titles), "has a <<title>>" if any(titles) else "no <<title>>")


def number_placeholders(response: str, *, num_placeholders: int) -> Judgment:
    """How many pairs of square brackets there are, each within a line."""
    return counted(len(re.findall(r"\[.*?\]", response)), "at least", num_placeholders, "[placeholders]")


def postscript(response: str, *, postscript_marker: str) -> Judgment:
    """The marker occurs, in any case; `P.S.` and `P.P.S` with or without a space between their letters."""
    pattern = POSTSCRIPTS.get(postscript_marker, re.escape(postscript_marker.lower()))
    found = re.search(pattern, response.lower()) is not None
    return judged(found, f"{postscript_marker} {'found' if found else 'missing'}")


def json_format(response: str) -> Judgment:
    """The whole response is JSON, in a code fence or not."""
    text = response.strip()
    for fence in FENCES:
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError) as error:
        return judged(False, f"not JSON: {error}")
    return judged(True, "valid JSON")


def constrained_response(response: str) -> Judgment:
    """One of the three answers of the benchmark occurs, word for word."""
    found = next((answer for answer in ANSWERS if answer in response), None)
    return judged(found is not None, repr(found) if found else f"none of {', '.join(map(repr, ANSWERS))}")
