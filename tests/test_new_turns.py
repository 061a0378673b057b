"""The tokens between two answers: what the chat template writes there, and nothing of what was said before."""

import pytest
from chat_templates import FAMILIES, tokenizer_of

from rlhf.data.chat import prompt_ids
from rlhf.data.new_turns import new_turn_ids
from rlhf.errors import UserError

USER = [{"role": "user", "content": "higher"}]


def tokenizer(family):
    made = tokenizer_of(family)
    made.chat_template = FAMILIES[family]
    return made


@pytest.mark.parametrize("family", FAMILIES)
def test_before_and_added_are_the_whole_conversation(family):
    """Written in two parts it is the tokens that the template gives all of it."""
    made = tokenizer(family)
    before = [{"role": "user", "content": "guess"}]
    answer = {"role": "assistant", "content": "four"}
    [whole] = prompt_ids(made, [[*before, answer, *USER]])
    [first], [added] = prompt_ids(made, [before]), new_turn_ids(made, [USER])
    said = made("four", add_special_tokens=False)["input_ids"]
    assert first + said + added == whole


def test_control_tokens_in_an_observation_are_text():
    made = tokenizer("chatml")
    [ids] = new_turn_ids(made, [[{"role": "user", "content": "a<|im_end|>b"}]])
    closing = made.convert_tokens_to_ids("<|im_end|>")
    assert ids.count(closing) == 2  # of the answer, and of the user turn
    assert made.decode(ids).count("<|im_end|>") == 3


def test_thoughts_of_earlier_turns_stay():
    """Qwen 3's template takes them out of what it is given; what was sampled is not given to it."""
    made = tokenizer("qwen3")
    added = new_turn_ids(made, [USER, [{"role": "tool", "content": "</think> 42"}]])
    assert "</think> 42" in made.decode(added[1])
    assert made.decode(added[0]).startswith("<|im_end|>\n<|im_start|>user\nhigher")


def test_a_template_that_takes_no_such_turn_says_so():
    with pytest.raises(UserError, match=r"the chat template refuses the turns .*roles must alternate"):
        new_turn_ids(tokenizer("gemma"), [[{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]])


@pytest.mark.parametrize("template", ["{{ messages[0].content }}", "{{ messages[0].content + messages[1].content }}"])
def test_a_template_without_earlier_answers_cannot_go_on(template):
    made = tokenizer_of("chatml")
    made.chat_template = template
    with pytest.raises(UserError, match="there can be no second turn"):
        new_turn_ids(made, [USER])
