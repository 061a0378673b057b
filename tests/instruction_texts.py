"""Prompts' instructions and responses to them, drawn at random near the line between followed and not followed."""

from collections.abc import Iterator
from random import Random
from typing import Any

Case = tuple[str, dict[str, Any], str]

SENTENCES = {
    "en": (
        "The river froze over night.",
        "We walked home without a word, and nobody asked why.",
        "Is it late?",
        "Stop!",
    ),
    "de": ("Der Fluss ist über Nacht zugefroren.", "Wir gingen schweigend nach Hause.", "Warum ist es schon so spät?"),
    "fr": (
        "La rivière a gelé pendant la nuit.",
        "Nous sommes rentrés à pied sans rien dire.",
        "Pourquoi est-il si tard ?",
    ),
    "es": ("El río se heló durante la noche.", "Volvimos a casa sin decir nada.", "¿Por qué es tan tarde?"),
    "pt": ("O rio congelou durante a noite.", "Voltamos para casa sem dizer nada.", "Por que já é tão tarde?"),
    "it": ("Il fiume è gelato durante la notte.", "Siamo tornati a casa senza dire nulla.", "Perché è così tardi?"),
    "fi": ("Joki jäätyi yön aikana.", "Kävelimme kotiin sanomatta mitään.", "Miksi on jo näin myöhä?"),
    "ru": ("Река замёрзла за ночь.", "Мы молча шли домой.", "Почему уже так поздно?"),
    "hi": ("नदी रात में जम गई।", "हम चुपचाप घर चले गए।", "इतनी देर क्यों हो गई?"),
    "ar": ("تجمد النهر خلال الليل.", "عدنا إلى البيت دون أن نقول شيئا.", "لماذا تأخر الوقت؟"),
}
WORDS = (
    "river",
    "lantern",
    "Kite",
    "bread",
    "winter",
    "it's",
    "well-known",
    "don't",
    "co-op",
    "naïve",
    "snow_man",
    "42",
)
ODDITIES = (
    "Dr. Hale met Mr. Orr at 5 p.m. on Main St. yesterday.", "e.g. this, i.e. that...",
    "He paid $3.50. Then he left.", "She lives in the U.S. now.", "What?! No. Yes", "1. First\n2. Second", "*", "**",
    "***", "******", "* *", "*  *x*", "**bold** and *soft*", "* one\n* two", "- one\n- two", "---", "+ plus",
    "*\n* nested", "\t- tab", "[name]", "[]", "[a] [b", "[two\nlines]", "<<Title>>", "<<>>", "<< >>", "<<<>>>",
    "<<a\nb>>", "<<a>> <<b>>", "<>", "\"", "'", "\"quoted\"", "“curly”", "P.S. more", "p. s. more", "P.P.S more",
    "PPS", "p.p. s", "P.S more", "{", "}", "{\"a\": 1}", "[1, 2]", "null", "NaN", "```json", "```",
    "```JSON\n{}\n```", ",", "，", "My answer is yes.", "My answer is no", "my answer is maybe.", "Section 1",
    "SECTION2", "Section  3", "Day 1 Day 2", "NASA", "U.S.A.", "A", "I", "I'M", "GONNA", "CANNOT", "X-RAY", "X-Ray",
    "ΑΒΓ", "123", "!!!", "…", "İstanbul", "STRASSE", "ß", "\u2028", "\u00a0", "\r\n", "https://example.org/a_b",
    "me@example.org", "🙂", "x" * 40, "\x0b", "don\u2019t",
)  # fmt: skip
JOINTS = (" ", " ", " ", "\n", "\n\n", "", "\n\n\n", " *** ", "***", "\n***\n", "******", "\n******\n", "  ")
OPENERS = ("today", "still", "it", "Elm")
ENDINGS = ("That is all.", "Any thoughts?", "see you soon", "The end")
PROMPTS = ("Write a line about snow.", "Name two rivers\nand say why.", "What is a kite?")


def cases(seed: int, per_kind: int) -> Iterator[Case]:
    """`per_kind` cases of each kind: its name, its arguments, a response."""
    rng = Random(seed)
    for name, draw in DRAWS.items():
        for _ in range(per_kind):
            arguments, hits = draw(rng)
            yield name, arguments, _response(rng, hits)


def _response(rng: Random, hits: list[str]) -> str:
    """The hits alone, or among ordinary and odd pieces in any order, sometimes changed as a whole."""
    if rng.random() < 0.25:
        return " ".join(hits)
    ordinary = [rng.choice(SENTENCES["en"]) for _ in range(rng.choice((0, 0, 1, 3)))]
    odd = [rng.choice(ODDITIES) for _ in range(rng.choice((0, 0, 0, 1, 3)))]
    pieces = [*hits, *ordinary, *odd]
    if rng.random() < 0.4:
        rng.shuffle(pieces)
    joint = rng.choice(JOINTS)
    text = "".join(piece + (joint if rng.random() < 0.8 else rng.choice(JOINTS)) for piece in pieces)
    if rng.random() < 0.7:
        text = text.removesuffix(joint)
    return rng.choice(
        (
            str,
            str,
            str,
            str,
            str,
            str.upper,
            str.lower,
            str.title,
            str.swapcase,
            lambda t: f'"{t}"',
            lambda t: f"Sure!\n{t}\nBye",
        )
    )(text)


def _number(rng: Random, most: int = 5) -> tuple[int, int]:
    """A threshold, and a count near it."""
    wanted = rng.randint(1, most)
    return wanted, max(0, wanted + rng.choice((-2, -1, -1, 0, 0, 0, 1, 2)))


def _relation(rng: Random) -> str:
    return rng.choice(("at least", "less than"))


def _repeated(argument: str, pieces: tuple[str, ...], relation: str | None = None, most: int = 5) -> Any:
    """A kind with one threshold, and perhaps a relation: a count near it of pieces that may count."""

    def draw(rng: Random) -> tuple[dict[str, Any], list[str]]:
        wanted, count = _number(rng, most)
        arguments: dict[str, Any] = {argument: wanted}
        if relation:
            arguments[relation] = _relation(rng)
        return arguments, [rng.choice(pieces) for _ in range(count)]

    return draw


def _plain(*pieces: str) -> Any:
    """A kind without arguments, and one or two pieces."""
    return lambda rng: ({}, [rng.choice(pieces) for _ in range(rng.choice((1, 1, 2)))])


def _varied(rng: Random, word: str) -> str:
    return rng.choice(
        (
            word,
            word,
            word.upper(),
            word.title(),
            f"{word}s",
            f"un{word}",
            f"({word})",
            f"{word}.",
            f"_{word}",
            word[:-1],
        )
    )


def _keywords(argument: str) -> Any:
    def draw(rng: Random) -> tuple[dict[str, Any], list[str]]:
        words = rng.sample(WORDS, rng.randint(1, 3))
        used = words if rng.random() < 0.5 else rng.sample(WORDS, rng.randint(0, 3))
        return {argument: words}, [_varied(rng, word) for word in used]

    return draw


def _keyword_frequency(rng: Random) -> tuple[dict[str, Any], list[str]]:
    (wanted, count), word = _number(rng), rng.choice(WORDS)
    return {"keyword": word, "frequency": wanted, "relation": _relation(rng)}, [
        _varied(rng, word) for _ in range(count)
    ]


def _letter_frequency(rng: Random) -> tuple[dict[str, Any], list[str]]:
    (wanted, count), letter = _number(rng, 12), rng.choice("aeiqxznstEQ")
    arguments = {"letter": letter, "let_frequency": wanted, "let_relation": _relation(rng)}
    return arguments, [rng.choice((letter, letter.upper(), letter.lower() + "k")) for _ in range(count)]


def _language(rng: Random) -> tuple[dict[str, Any], list[str]]:
    language = rng.choice(list(SENTENCES))
    spoken = language if rng.random() < 0.7 else rng.choice(list(SENTENCES))
    return {"language": language}, [rng.choice(SENTENCES[spoken]) for _ in range(rng.randint(1, 4))]


def _sections(rng: Random) -> tuple[dict[str, Any], list[str]]:
    (wanted, count), word = _number(rng, 4), rng.choice(("Section", "SECTION", "Day", "PARAGRAPH"))
    style = rng.choice(("{} {}", "{} {}", "{}{}", "{}  {}", "**{} {}**"))
    return {"section_spliter": word, "num_sections": wanted}, [style.format(word, n + 1) for n in range(count)]


def _paragraphs(rng: Random) -> tuple[dict[str, Any], list[str]]:
    wanted, count = _number(rng, 4)
    texts = [rng.choice((*SENTENCES["en"], "", " ")) if rng.random() < 0.2 else "A line." for _ in range(max(1, count))]
    return {"num_paragraphs": wanted}, [rng.choice(("***", "\n***\n", "\n\n***\n\n", " *** ")).join(texts)]


def _first_word(rng: Random) -> tuple[dict[str, Any], list[str]]:
    (wanted, count), word = _number(rng, 4), rng.choice(OPENERS)
    nth = rng.randint(1, wanted)
    texts = [rng.choice((*SENTENCES["en"], "\n", "Word")) for _ in range(max(1, count))]
    if nth <= len(texts):
        start = rng.choice(
            (word, word.title(), f'"{word}', f"'{word}'", f"{word},", f"{word}'s", f"\n {word}", f"*{word}", f"{word}-")
        )
        texts[nth - 1] = f"{start} {texts[nth - 1]}"
    return {"num_paragraphs": wanted, "nth_paragraph": nth, "first_word": word}, [
        rng.choice(("\n\n", "\n\n", "\n\n\n", "\n")).join(texts)
    ]


def _two_responses(rng: Random) -> tuple[dict[str, Any], list[str]]:
    texts = [rng.choice(("One.", "Two.", " One. ", "")) for _ in range(rng.choice((1, 2, 2, 2, 3)))]
    return {}, [rng.choice(("******", "\n******\n", "*******", "*****", "***")).join(texts)]


def _repeat(rng: Random) -> tuple[dict[str, Any], list[str]]:
    prompt = rng.choice(PROMPTS)
    said = rng.choice((prompt, prompt, prompt.upper(), f"\n{prompt}", prompt[:-1], f"Sure. {prompt}", f"*{prompt}*"))
    return {"prompt_to_repeat": prompt}, [said, "Then the answer."]


def _end(rng: Random) -> tuple[dict[str, Any], list[str]]:
    phrase = rng.choice(ENDINGS)
    said = rng.choice(
        (
            phrase,
            phrase,
            phrase.upper(),
            f'"{phrase}"',
            f"{phrase}!",
            f"{phrase} ",
            f"*{phrase}*",
            phrase[1:],
            f"{phrase}\n\n",
        )
    )
    return {"end_phrase": phrase}, ["It began to rain.", said]


def _postscript(rng: Random) -> tuple[dict[str, Any], list[str]]:
    marker = rng.choice(("P.S.", "P.P.S"))
    said = rng.choice((marker, marker, marker.lower(), "P. S.", "P. P. S", "P.P.S.", "PS", "P.S", "P.\nS.", "p.p.\tS"))
    return {"postscript_marker": marker}, ["Dear Ann.", f"{said} Bring the kite."]


JSON = ('{"a": [1, 2.5e3, "x"]}', '{"a": 1,}', "[]", '"text"', "3", "{'a': 1}", '```json\n{"a": null}\n```',
    '```\n[true]\n```',
        '```json\n{"a": 1}', "```python\n1\n```", '{"a": "\n"}', "Infinity", '{"a": 1} {"b": 2}')  # fmt: skip
DRAWS = {
    "change_case:capital_word_frequency": _repeated(
            "capital_frequency", ("NASA", "RAIN", "X-RAY", "U.S.", "A", "GONNA", "IT'S", "Rain", "rain", "K9",
            "“NO”"), "capital_relation"
        ),
    "change_case:english_capital": _plain("THE RIVER FROZE OVER NIGHT.", "WE WALKED HOME", "NOBODY ASKED WHY",
        "The river", "DER FLUSS IST SCHÖN", "123", "НЕТ", "IT'S 5 PM."),
    "change_case:english_lowercase": _plain("the river froze over night.", "we walked home", "The river",
        "der fluss ist kalt und tief", "123", "нет"),
    "combination:repeat_prompt": _repeat,
    "combination:two_responses": _two_responses,
    "detectable_content:number_placeholders": _repeated("num_placeholders", ("[name]", "[street] [town]", "[]",
        "[", "]", "[a\nb]", "[x](y)")),
    "detectable_content:postscript": _postscript,
    "detectable_format:constrained_response": _plain("My answer is yes.", "My answer is no.",
        "my answer is yes.", "My answer is maybe", "**My answer is maybe.**"),
    "detectable_format:json_format": _plain(*JSON),
    "detectable_format:multiple_sections": _sections,
    "detectable_format:number_bullet_lists": _repeated("num_bullets", ("\n* one", "\n- two", "\n  * three",
        "\n** four", "\n*five*", "\n-", "\n*", "\n• six")),
    "detectable_format:number_highlighted_sections": _repeated("num_highlights", ("*a*", "**b c**", "* *",
        "*d", "***e***", "*f\ng*", "**")),
    "detectable_format:title": _plain("<<On Snow>>", "<< >>", "<On Snow>", "<<On\nSnow>>", "<<<>>>", "<<a>>>",
        "<<>> x>>"),
    "keywords:existence": _keywords("keywords"),
    "keywords:forbidden_words": _keywords("forbidden_words"),
    "keywords:frequency": _keyword_frequency,
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _language,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_sentences": _repeated("num_sentences", (*SENTENCES["en"], *ODDITIES[:6]),
        "relation", most=8),
    "length_constraints:number_words": _repeated("num_words", WORDS, "relation", most=30),
    "punctuation:no_comma": _plain("No comma here.", "One, here.", "，", "1;2", "a,"),
    "startend:end_checker": _end,
    "startend:quotation": _plain('"A line."', "'A line.'", '"A line.', "“A line.”", '"', '""'),
}  # fmt: skip
