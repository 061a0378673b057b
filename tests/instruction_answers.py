"""Answers that follow the instructions of a row: what shows that they do not contradict each other."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

ENGLISH = (
    "The old dog sat by the wall.", "Nobody knew what he saw.", "We found it odd but good.", "Then a man came by.",
    "His hat was on his arm.", "It was much too late.", "All of us had to go.", "That is how it went.",
)  # fmt: skip
LANGUAGES = {
    "ar": ("جلس الكلب العجوز بجانب الجدار.", "لم يعرف أحد ماذا رأى."),
    "de": ("Der alte Hund saß vor der Tür.", "Niemand wusste, was er sah."),
    "es": ("El perro viejo estaba junto a la pared.", "Nadie sabía lo que miraba."),
    "fi": ("Vanha koira istui seinän vieressä.", "Kukaan ei tiennyt mitä se näki."),
    "fr": ("Le vieux chien était assis devant la porte.", "Personne ne savait ce qu'il voyait."),
    "hi": ("बूढ़ा कुत्ता दीवार के पास बैठा था।", "किसी को नहीं पता था कि उसने क्या देखा।"),
    "it": ("Il vecchio cane era seduto davanti alla porta.", "Nessuno sapeva che cosa vedesse."),
    "ko": ("늙은 개가 벽 옆에 앉아 있었다.", "아무도 그가 무엇을 보았는지 몰랐다."),
    "nl": ("De oude hond zat bij de muur.", "Niemand wist wat hij zag."),
    "pt": ("O cachorro velho estava sentado perto da parede.", "Ninguém sabia o que ele via."),
    "ru": ("Старая собака сидела у стены.", "Никто не знал что она видела."),
    "vi": ("Con chó già ngồi bên bức tường.", "Không ai biết nó đã nhìn thấy gì."),
}
ANSWER = "detectable_format:constrained_response"


def answers(ids: list[str], kwargs: list[dict[str, Any]]) -> Iterator[str]:
    """Attempts with more and more filler, in several draws of each length, and all of it in one sentence."""
    if ids == [ANSWER]:
        yield "My answer is maybe."
        return
    wanted = {key: value for each in kwargs for key, value in each.items()}
    wanted["keyword_relation"] = next((each["relation"] for each in kwargs if "keyword" in each), None)
    rng = Random(0)
    filler = [text.replace(",", "") for text in LANGUAGES.get(wanted.get("language", ""), ENGLISH)]
    for size in range(1, 45):
        for _ in range(4):
            drawn = [rng.choice(filler) for _ in range(size)]
            yield _answer(set(ids), wanted, drawn)
            yield _answer(set(ids), wanted, [" and ".join(text.rstrip(".") for text in drawn) + "."])


def _answer(kinds: set[str], wanted: dict[str, Any], filler: list[str]) -> str:
    text = _structured(kinds, wanted, [*_asked_for(wanted), *filler])
    if "detectable_format:title" in kinds:
        text = f"<<A day>>\n{text}"
    if "postscript_marker" in wanted:
        text += f"\n{wanted['postscript_marker']} bye"
    if "end_phrase" in wanted:
        text += f" {wanted['end_phrase']}"
    if "change_case:english_capital" in kinds:
        text = text.upper()
    if "change_case:english_lowercase" in kinds:
        text = text.lower()
    if "prompt_to_repeat" in wanted:
        text = f"{wanted['prompt_to_repeat']} {text}"
    if "detectable_format:json_format" in kinds:
        text = json.dumps({"answer": text})
    return f'"{text}"' if "startend:quotation" in kinds else text


def _asked_for(wanted: dict[str, Any]) -> list[str]:
    """The pieces that instructions about counts ask for: as few as will do."""
    pieces = list(wanted.get("keywords", ()))
    if wanted["keyword_relation"] == "at least":
        pieces += [wanted["keyword"]] * wanted["frequency"]
    if wanted.get("let_relation") == "at least":
        pieces.append(wanted["letter"] * wanted["let_frequency"])
    if wanted.get("capital_relation") == "at least":
        pieces += ["LOUD"] * wanted["capital_frequency"]
    pieces += ["[name]"] * wanted.get("num_placeholders", 0)
    pieces += ["*so*"] * wanted.get("num_highlights", 0)
    return [" ".join(pieces) + "."] if pieces else []


def _structured(kinds: set[str], wanted: dict[str, Any], sentences: list[str]) -> str:
    """The sentences in the shape that is asked for, most of them in its last part."""
    if "num_bullets" in wanted:
        return "\n".join(["Here:", *["- ok"] * (wanted["num_bullets"] - 1), f"- {' '.join(sentences)}"])
    if "num_sections" in wanted:
        heads = [f"{wanted['section_spliter']} {n + 1}" for n in range(wanted["num_sections"])]
        return "\n".join([f"{head}\nok" for head in heads[:-1]] + [f"{heads[-1]}\n{' '.join(sentences)}"])
    if "combination:two_responses" in kinds:
        return f"{sentences[0]}\n******\n{' '.join(sentences)} {sentences[0]}"
    if "num_paragraphs" in wanted:
        paragraphs = ["ok"] * (wanted["num_paragraphs"] - 1) + [" ".join(sentences)]
        if "first_word" not in wanted:
            return "\n***\n".join(paragraphs)
        nth = wanted["nth_paragraph"] - 1
        paragraphs[nth] = f"{wanted['first_word']} {paragraphs[nth]}"
        return "\n\n".join(paragraphs)
    return " ".join(sentences)
