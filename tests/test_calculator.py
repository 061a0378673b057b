"""The calculator: what it computes, which calls it reads, what an answer earns."""

import random

import pytest
from chat_templates import FAMILIES, tokenizer_of
from talkers import episodes_of, saying

from rlhf.environments import Step
from rlhf.environments.arithmetic import compute
from rlhf.environments.calculator import Calculator
from rlhf.environments.episodes import on_its_own, respond, seeded
from rlhf.errors import UserError


@pytest.mark.parametrize(
    ("expression", "value"),
    [("2 + 3 * 4", 14), ("(2+3)*4", 20), ("-7 // 2", -4), ("7 % 4", 3), ("2**10", 1024), ("1/8", 0.125), (" +5", 5)],
)
def test_arithmetic(expression, value):
    assert compute(expression) == value


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("__import__('os')", "only numbers"),
        ("(1).real", "only numbers"),
        ("True + 1", "only numbers"),
        ("1 if 1 else 2", "only numbers"),
        ("9**9**9", "exponent 387420489 is larger than 64"),
        ("1 / 0", "division by zero"),
        ("1e308 * 10", "the result is too large"),
        ("1e308 * 10 - 1e308 * 10", "the result is too large"),
        ("(-8) ** 0.5", "not a real number"),
        ("2 +", "is no expression"),
        ("1" * 201, "has 201 characters"),
        ("(" * 150, "is no expression"),
    ],
)
def test_what_is_no_arithmetic_is_refused(expression, message):
    with pytest.raises(ValueError, match=message):
        compute(expression)


HERMES = '<tool_call>{"name": "calculator", "arguments": {"expression": "6*7"}}</tool_call>'


@pytest.mark.parametrize(
    ("call", "result"),
    [
        (HERMES, "42"),
        (f"Let me see.\n{HERMES}", "42"),
        (HERMES.removesuffix("</tool_call>"), "42"),
        ('<tool_call>[{"name": "calculator", "arguments": {"expression": "6*7"}}]</tool_call>', "42"),
        ('{"name": "calculator", "parameters": {"expression": "0.1 + 0.2"}}', "0.3"),
        ("<tool_call>6*7</tool_call>", "error: the call is not JSON"),
        ('<tool_call>{"name": "python", "arguments": {}}</tool_call>', "error: the only tool is called calculator"),
        ('{"name": "calculator", "arguments": "6*7"}', "error: the call needs arguments with an expression, a string"),
        (HERMES.replace("6*7", "x"), "error: only numbers, parentheses and + - * / // % ** are allowed"),
    ],
)
def test_calls_in_the_formats_of_several_families(call, result):
    environment = Calculator(cost=0.1)
    environment.reset(seed=0)
    assert environment.step(call) == Step(
        [{"role": "user", "content": result}], -0.1, False, {"right": 0.0, "calls": 1.0}
    )


def test_an_answer_is_right_or_wrong():
    environment = Calculator()
    [system, asked] = environment.reset(seed=3, prompt="How much is 1200 * 3?", reference="That is 3,600.")
    assert system["role"] == "system"
    assert "<tool_call>" in system["content"]
    assert asked == {"role": "user", "content": "How much is 1200 * 3?"}
    assert environment.step("I think 1200 times 3 is 3600.").reward == 1.0
    environment.reset(seed=3, prompt="How much is 1200 * 3?", reference="3600")
    assert environment.step("3601").reward == 0.0
    environment.reset(seed=3, prompt="How much is 1200 * 3?", reference="3600")
    wrong = environment.step("No idea")
    assert (wrong.reward, wrong.done) == (0.0, True)
    with pytest.raises(ValueError, match="holds no number"):
        environment.reset(seed=3, prompt="How much?", reference=None)


def test_questions_of_its_own_follow_from_the_seed():
    environment = Calculator(largest=9)
    first, again = (environment.reset(seed=1)[1]["content"] for _ in range(2))
    assert first == again
    expression = first.removeprefix("What is ").removesuffix("?")
    assert environment.answer == compute(expression)
    assert len({environment.question(random.Random(seed)) for seed in range(50)}) > 30


def test_the_last_turn_ends_it():
    environment = Calculator(turns=2)
    environment.reset(seed=0)
    assert not environment.step(HERMES).done
    assert environment.step(HERMES).done


def test_in_the_template_of_the_model():
    """Qwen's template shows the tool and takes its answer in the role tool; a template without tools says so."""
    made = tokenizer_of("qwen3")
    made.chat_template = FAMILIES["qwen3"]
    args = {"explained_in": "template"}
    closed = made(f"{HERMES}<|im_end|>", add_special_tokens=False)["input_ids"]
    sampler = saying(closed, made("42<|im_end|>", add_special_tokens=False)["input_ids"])
    episodes = episodes_of(made, "calculator", context=4000, max_new_tokens=500, args=args)
    rows = seeded([on_its_own(episodes.spec)], "")
    responses = respond(rows, sampler, made, episodes)
    first, second = (made.decode(sampler.heard[turn][0][0]) for turn in (0, 1))
    assert "Tools:" in first
    assert "Computes an arithmetic expression." in first
    assert second.startswith(first + HERMES + "<|im_end|>\n<|im_start|>tool\n42<|im_end|>")
    assert responses.episodes[0].metrics["calls"] == 1
    plain = tokenizer_of("chatml")
    plain.chat_template = FAMILIES["chatml"]
    with pytest.raises(UserError, match="the row has tools, which the chat template does not read"):
        respond(rows, sampler, plain, episodes_of(plain, "calculator", context=4000, args=args))
