"""The 25 checks against lm-eval's, on thousands of drawn responses, strictly and loosely.

Needs lm-eval 0.4.13, and for two kinds NLTK's punkt_tab, where NLTK looks for it. What differs on purpose is not drawn:
docs/dev/rewards.md lists it, and test_instructions.py holds the values.
"""

from collections import Counter

import pytest

pytest.importorskip("langdetect")
pytest.importorskip("nltk")
pytest.importorskip("punkt")

from instruction_texts import DRAWS, cases

from rlhf.rewards.ifeval import KINDS
from rlhf.rewards.ifeval.accuracy import follows, follows_loosely, measure_accuracy
from rlhf.rewards.ifeval.registry import read_instructions

PER_KIND = 200
NEED_PUNKT = ("change_case:capital_word_frequency", "length_constraints:number_sentences")


@pytest.fixture(scope="module")
def theirs():
    """lm-eval's module, its language detection seeded as ours is."""
    module = pytest.importorskip("lm_eval.tasks.ifeval.utils")
    from langdetect import DetectorFactory

    DetectorFactory.seed = 0
    yield module
    DetectorFactory.seed = None


@pytest.fixture
def punkt_tab(name):
    """Skips the kinds whose reference needs data that is not there."""
    import nltk

    if name in NEED_PUNKT:
        try:
            nltk.data.find("tokenizers/punkt_tab")
        except LookupError:
            pytest.skip("NLTK's punkt_tab is not installed")


def test_the_cases_know_every_kind():
    assert set(DRAWS) == set(KINDS)


@pytest.mark.parametrize("name", DRAWS)
def test_agreement(theirs, punkt_tab, name):
    verdicts, wrong = Counter(), []
    for kind, arguments, response in cases(seed=1, per_kind=PER_KIND):
        if kind != name:
            continue
        row = theirs.InputExample(key=0, instruction_id_list=[name], prompt="", kwargs=[arguments])
        (instruction,) = read_instructions([name], [arguments])
        ours = follows(instruction, response), follows_loosely(instruction, response)
        reference = (
            theirs.test_instruction_following_strict(row, response).follow_instruction_list[0],
            theirs.test_instruction_following_loose(row, response).follow_instruction_list[0],
        )
        verdicts[reference[0]] += 1
        if ours != reference:
            wrong.append((arguments, response, ours, reference))
    assert not wrong, f"{len(wrong)} of {PER_KIND} differ: {wrong[:3]}"
    assert min(verdicts[True], verdicts[False]) >= PER_KIND // 10, f"{verdicts} says little"


def test_the_accuracies_agree_on_prompts_with_several_instructions(theirs):
    drawn = [case for case in cases(seed=2, per_kind=8) if case[0] not in NEED_PUNKT]
    rows = []
    for at in range(0, len(drawn) - 2):
        names, arguments, responses = zip(*drawn[at : at + 3 : 2], strict=True)
        rows.append({"instruction_id_list": list(names), "kwargs": list(arguments), "response": "\n\n".join(responses)})
    results = [theirs.process_results({"key": 0, "prompt": "", **row}, [row["response"]]) for row in rows]
    ours = measure_accuracy(rows)
    for level, share in (("prompt", ours.prompts), ("inst", ours.instructions)):
        for how in ("strict", "loose"):
            values = [result[f"{level}_level_{how}_acc"] for result in results]
            expected = sum(values) / len(values) if level == "prompt" else theirs.agg_inst_level_acc(values)
            assert getattr(share, how) == pytest.approx(expected, abs=1e-12)
