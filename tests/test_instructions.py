"""The 25 kinds of verifiable instructions, with verdicts and closeness worked out by hand."""

import subprocess
import sys

import pytest

from rlhf.rewards import RewardError, RewardSpec, RewardSum, load_reward
from rlhf.rewards.ifeval import KINDS
from rlhf.rewards.ifeval.registry import read_instructions

LIBRARIES = ("langdetect", "nltk", "punkt")
NEED_LIBRARIES = (
    "change_case:capital_word_frequency",
    "change_case:english_capital",
    "change_case:english_lowercase",
    "language:response_language",
    "length_constraints:number_sentences",
)
CAPITALS = "change_case:capital_word_frequency"
NTH_WORD = "length_constraints:nth_paragraph_first_word"
ENGLISH = "The quick answer is that nobody in the village knew where the river came from"

# (kind, arguments, response, followed, closeness)
VALUES = [
    (CAPITALS, {"capital_frequency": 2, "capital_relation": "at least"}, "NASA and X-RAY", 1, 1),
    (CAPITALS, {"capital_frequency": 2, "capital_relation": "at least"}, "NASA, Esa", 0, 2 / 3),
    (CAPITALS, {"capital_frequency": 1, "capital_relation": "less than"}, "a B", 0, 1 / 2),
    ("change_case:english_capital", {}, ENGLISH.upper(), 1, 1),
    ("change_case:english_capital", {}, "ABCd", 0, 3 / 4),
    ("change_case:english_capital", {}, "1 2 3", 0, 0),
    ("change_case:english_lowercase", {}, ENGLISH.lower(), 1, 1),
    ("change_case:english_lowercase", {}, "der fluss ist in der nacht zugefroren und wir gehen nach hause", 0, 1 / 2),
    ("change_case:english_lowercase", {}, "Abcde 5", 0, 4 / 5),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Name two rivers."}, " name TWO rivers.\nThe Elbe.", 1, 1),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Name two rivers."}, "Name two", 0, 8 / 16),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Name two rivers."}, "Sure. Name two rivers.", 0, 0),
    ("combination:two_responses", {}, "One.\n******\nTwo.", 1, 1),
    ("combination:two_responses", {}, "******One.******Two.******", 1, 1),
    ("combination:two_responses", {}, "One.******One.", 0, 1 / 2),
    ("combination:two_responses", {}, "One.***Two.", 0, 2 / 3),
    ("combination:two_responses", {}, "One.************Two.", 0, 0),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "Dear [name], [date]", 1, 1),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "Dear [name], [da\nte]", 0, 2 / 3),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\np. s. and the cat", 1, 1),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nPS and the cat", 0, 0),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP.P.S. and the cat", 1, 1),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP.S. and the cat", 0, 0),
    ("detectable_content:postscript", {"postscript_marker": "Note."}, "Notes", 0, 0),
    ("detectable_format:constrained_response", {}, "Well. My answer is maybe.", 1, 1),
    ("detectable_format:constrained_response", {}, "my answer is maybe.", 0, 0),
    ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', 1, 1),
    ("detectable_format:json_format", {}, 'Here: {"a": [1]}', 0, 0),
    ("detectable_format:json_format", {}, "[" * 100_000, 0, 0),
    ("detectable_format:multiple_sections", {"section_spliter": "Day", "num_sections": 2}, "Day 1\na\nDay 2\nb", 1, 1),
    ("detectable_format:multiple_sections", {"section_spliter": "Day", "num_sections": 2},
     "Day 1\na\nday 2\nb", 0, 2 / 3),
    ("detectable_format:multiple_sections", {"section_spliter": "D.y", "num_sections": 1}, "Day 1", 0, 1 / 2),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "List:\n* a\n  - b", 1, 1),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n* b\n* c", 0, 3 / 4),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "**a**\n• b", 0, 1 / 2),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b c**", 1, 1),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 3}, "*a* and * * and ****", 0, 2 / 4),
    ("detectable_format:title", {}, "<<On snow>>\nIt fell.", 1, 1),
    ("detectable_format:title", {}, "<< >> <On snow>", 0, 0),
    ("keywords:existence", {"keywords": ["kite", "Rain"]}, "Kites in the rain", 1, 1),
    ("keywords:existence", {"keywords": ["kite", "rain", "fog"]}, "A kite", 0, 1 / 3),
    ("keywords:existence", {"keywords": ["C++"]}, "C++ and C", 1, 1),
    ("keywords:forbidden_words", {"forbidden_words": ["kite", "rain"]}, "Kites and a train", 1, 1),
    ("keywords:forbidden_words", {"forbidden_words": ["kite", "rain"]}, "A KITE!", 0, 1 / 2),
    ("keywords:forbidden_words", {"forbidden_words": ["C++"]}, "in C++.", 0, 0),
    ("keywords:frequency", {"keyword": "kite", "frequency": 3, "relation": "at least"}, "kite, Kites, kitesurf", 1, 1),
    ("keywords:frequency", {"keyword": "kite", "frequency": 3, "relation": "at least"}, "kite", 0, 2 / 4),
    ("keywords:frequency", {"keyword": "kite", "frequency": 2, "relation": "less than"}, "kite kite kite", 0, 2 / 4),
    ("keywords:letter_frequency", {"letter": "e", "let_frequency": 3, "let_relation": "at least"}, "Every tree", 1, 1),
    ("keywords:letter_frequency", {"letter": "E", "let_frequency": 3, "let_relation": "less than"},
     "Every tree", 0, 3 / 5),
    ("keywords:letter_frequency", {"letter": "!", "let_frequency": 2, "let_relation": "at least"}, "Yes! Go!", 1, 1),
    ("language:response_language", {"language": "de"}, "Der Fluss ist über Nacht zugefroren.", 1, 1),
    ("language:response_language", {"language": "de"}, ENGLISH, 0, 0),
    ("language:response_language", {"language": "de"}, "123", 1, 1),
    (NTH_WORD, {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Still"}, "One.\n\n'Still, two.", 1, 1),
    (NTH_WORD, {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "still"}, "One.\n\nTwo.", 0, 1 / 2),
    (NTH_WORD, {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "still"}, "Still", 0, (2 / 3 + 1) / 2),
    (NTH_WORD, {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "two"}, "One.\n\n\n\nTwo.", 0, 1 / 2),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "***\nOne.\n***\nTwo.\n***", 1, 1),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One.\n\nTwo.", 0, 2 / 3),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One.***Two.***Three.", 0, 3 / 4),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One.\n***\n***\nTwo.", 0, 0),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"},
     "Dr. Orr came. He left!", 1, 1),
    ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "at least"},
     "Dr. Orr came. He left!", 0, 3 / 4),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, "I came. I saw.", 0, 2 / 3),
    ("length_constraints:number_words", {"num_words": 4, "relation": "at least"}, "I don't know.", 1, 1),
    ("length_constraints:number_words", {"num_words": 9, "relation": "at least"}, "I don't know.", 0, 5 / 10),
    ("length_constraints:number_words", {"num_words": 4, "relation": "less than"}, "I don't know.", 0, 4 / 5),
    ("punctuation:no_comma", {}, "No; none.", 1, 1),
    ("punctuation:no_comma", {}, "One, two, three", 0, 1 / 3),
    ("startend:end_checker", {"end_phrase": "That is ALL."}, '"So it goes. that is all." ', 1, 1),
    ("startend:end_checker", {"end_phrase": "That is all."}, "That is all. Bye", 0, 1 / 2),
    ("startend:end_checker", {"end_phrase": "That is all."}, "Bye", 0, 0),
    ("startend:quotation", {}, ' "A line."\n', 1, 1),
    ("startend:quotation", {}, '"A line.', 0, 1 / 2),
    ("startend:quotation", {}, '"', 0, 1 / 2),
    ("startend:quotation", {}, "“A line.”", 0, 0),
]  # fmt: skip


@pytest.fixture
def libraries():
    """Skips where the extra [instructions] is not installed."""
    for name in LIBRARIES:
        pytest.importorskip(name)


@pytest.fixture
def kind_libraries(request, kind):
    if kind in NEED_LIBRARIES:
        request.getfixturevalue("libraries")


def evaluate(kind, arguments, response):
    (instruction,) = read_instructions([kind], [arguments])
    return instruction.evaluate(response)


def score(response, ids, kwargs, **args):
    rewards = RewardSum.from_specs([RewardSpec(path="instructions", args=args)])
    return rewards(["p"], [response], {"instruction_id_list": [ids], "kwargs": [kwargs], "key": [1]}).total[0]


@pytest.mark.parametrize(("kind", "arguments", "response", "followed", "closeness"), VALUES)
def test_values(kind_libraries, kind, arguments, response, followed, closeness):
    judgment = evaluate(kind, arguments, response)
    assert judgment.followed == bool(followed), judgment.note
    assert judgment.closeness == pytest.approx(closeness), judgment.note


def test_every_kind_has_values_of_both_sorts():
    for followed in (0, 1):
        assert {value[0] for value in VALUES if value[3] == followed} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_response_follows_nothing(kind):
    arguments = next(value[1] for value in VALUES if value[0] == kind)
    if kind != "language:response_language":  # whose argument needs the library
        judgment = evaluate(kind, arguments, " \n")
        assert (judgment.followed, judgment.closeness) == (False, 0.0)


TWO = ["punctuation:no_comma", "length_constraints:number_words"]
KWARGS = [{}, {"num_words": 4, "relation": "at least"}]


@pytest.mark.parametrize(
    ("credit", "one_of_two", "none_of_two"),
    [("fraction", 1 / 2, 0.0), ("all", 0.0, 0.0), ("partial", (1 + 0.5 * 4 / 5) / 2, 0.5 * (1 / 2 + 4 / 5) / 2)],
)
def test_credit(credit, one_of_two, none_of_two):
    assert score("Four words without commas", TWO, KWARGS, credit=credit) == 1.0
    assert score("Only three words", TWO, KWARGS, credit=credit) == pytest.approx(one_of_two)
    assert score("Only, three words", TWO, KWARGS, credit=credit) == pytest.approx(none_of_two)


def test_the_default_is_the_share_that_is_followed():
    assert score("Only three words", TWO, KWARGS) == 1 / 2


def test_another_credit_is_refused():
    with pytest.raises(RewardError, match="credit 'half' must be one of fraction, all, partial"):
        load_reward(RewardSpec(path="instructions", args={"credit": "half"}))


def test_rows_as_the_hub_has_them():
    nulls = dict.fromkeys(["num_words", "relation", "keywords", "letter", "end_phrase"])
    assert score("Only three words", TWO, [nulls, nulls | KWARGS[1]]) == 1 / 2


def test_a_row_without_instructions_has_no_score():
    rewards = RewardSum.from_specs([RewardSpec(path="instructions")])
    columns = {"instruction_id_list": [None, ["punctuation:no_comma"]], "kwargs": [None, [{}]]}
    assert rewards(["p", "p"], ["a", "b"], columns).components["instructions"] == [None, 1.0]
    reward = load_reward(RewardSpec(path="instructions"))
    assert reward.explain("p", "a", instruction_id_list=None, kwargs=None).startswith("does not apply")


def test_explains_itself():
    reward = load_reward(RewardSpec(path="instructions"))
    assert reward.explain("p", "One, two", instruction_id_list=TWO, kwargs=KWARGS).splitlines() == [
        "not followed: punctuation:no_comma (1 commas, asked for less than 1)",
        "not followed: length_constraints:number_words (2 words, asked for at least 4)",
    ]


@pytest.mark.parametrize(
    ("ids", "kwargs", "message"),
    [
        (["punctuation:no_coma"], [{}],
         "unknown instruction 'punctuation:no_coma'; the nearest .*'punctuation:no_comma'"),
        (["punctuation:no_comma"], [{"num_words": 3}],
         "'punctuation:no_comma' takes no arguments, but is given num_words"),
        (["startend:end_checker"], [{}], "'startend:end_checker' takes end_phrase, but is given none"),
        (["startend:end_checker"], [{"end_phrase": " "}], "end_phrase ' ' must be text that is not empty"),
        ([TWO[1]], [{"num_words": 0, "relation": "at least"}], "num_words 0 must be a whole number of at least 1"),
        ([TWO[1]], [{"num_words": True, "relation": "at least"}],
         "num_words True must be a whole number of at least 1"),
        ([TWO[1]], [{"num_words": 2, "relation": "over"}], "relation 'over' must be one of 'at least', 'less than'"),
        (["keywords:existence"], [{"keywords": []}], r"keywords \[\] must be a list of at least one text"),
        (["keywords:existence"], [{"keywords": "kite"}], "keywords 'kite' must be a list of at least one text"),
        (["keywords:letter_frequency"], [{"letter": "ab", "let_frequency": 1, "let_relation": "at least"}],
         "letter 'ab' must be a single char"),
        ([NTH_WORD], [{"num_paragraphs": 1, "nth_paragraph": 2, "first_word": "a"}],
         "nth_paragraph 2 must be at most num_paragraphs 1"),
        ([NTH_WORD], [{"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "a b"}],
         "first_word 'a b' must be a single word"),
        ([NTH_WORD], [{"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "I'm"}],
         "must be a single word without any of"),
        (["startend:end_checker"], [{"end_phrase": 'Call it "a day"'}], "text that does not end in a quotation"),
        (TWO, [{}], "must be a list of 2 objects, one per instruction"),
        (TWO, None, "kwargs None must be a list of 2 objects"),
        ([], [], r"instruction_id_list \[\] must be a list of at least one name"),
        ("punctuation:no_comma", [{}], "instruction_id_list 'punctuation:no_comma' must be a list"),
    ],
)  # fmt: skip
def test_bad_rows_are_named_in_one_line(ids, kwargs, message):
    with pytest.raises(RewardError, match=message) as caught:
        score("text", ids, kwargs)
    assert "\n" not in str(caught.value)


def test_data_without_the_columns_is_refused():
    rewards = RewardSum.from_specs([RewardSpec(path="instructions")])
    with pytest.raises(RewardError, match="needs the columns 'instruction_id_list' and 'kwargs'"):
        rewards(["p"], ["a"], {"reference": [None]})


def test_an_unknown_language_is_named(libraries):
    with pytest.raises(RewardError, match="language 'xx' must be one of af, ar,"):
        read_instructions(["language:response_language"], [{"language": "xx"}])


def test_the_language_of_a_text_is_the_same_each_time(libraries):
    from rlhf.rewards.ifeval.language import language_of

    assert len({language_of("me do so la") for _ in range(40)}) == 1  # without a seed it is pt one time in four


def test_a_missing_library_is_named():
    program = (
        "import sys\n"
        "sys.modules['langdetect'] = sys.modules['langdetect.detector_factory'] = sys.modules['nltk'] = None\n"
        "from rlhf.rewards.ifeval import read_instructions\n"
        "(one,) = read_instructions(['change_case:english_lowercase'], [{}])\n"
        "arguments = {'num_sentences': 1, 'relation': 'at least'}\n"
        "(two,) = read_instructions(['length_constraints:number_sentences'], [arguments])\n"
        "for instruction in (one, two):\n"
        "    try: instruction.evaluate('a line')\n"
        "    except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("instruction 'change_case:english_lowercase': ")
    assert first.endswith("needs langdetect, which is not installed: pip install 'rlhf-ppo[instructions]'")
    assert second.startswith("instruction 'length_constraints:number_sentences': this instruction needs nltk, which")
