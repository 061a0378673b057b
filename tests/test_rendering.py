"""How prompts are put to models: the token ids of texts and conversations, in the templates of known families."""

import pytest
from chat_templates import BOS, CHATML, ids, tokenizer_of

from rlhf.config import DataConfig
from rlhf.data.assistant_turns import assistant_mask
from rlhf.data.chat import prompt_ids, renderer
from rlhf.data.examples import TokenizedExample, tokenize
from rlhf.data.messages import read_turns
from rlhf.data.parsing import parse_row
from rlhf.data.rendering import Rendering
from rlhf.errors import UserError
from rlhf.rewards.learned import Settings, _encoder

START, END = ["<|im_start|>"], ["<|im_end|>"]
HEAD, HEAD_END, EOT = ["<|start_header_id|>"], ["<|end_header_id|>"], ["<|eot_id|>"]
TURN, TURN_END = ["<start_of_turn>"], ["<end_of_turn>"]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {}}}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}


def turns(*said: str) -> list[dict]:
    """`user: Hi` as a turn of that role."""
    pairs = (one.split(": ", 1) for one in said)
    return [{"role": role, "content": content} for role, content in pairs]


def tokenized(family: str, row: dict, context_length: int = 1000, **settings) -> TokenizedExample:
    data = DataConfig(**{"max_prompt_tokens": 1000} | settings)
    [example] = tokenize([parse_row(row, "rows.jsonl row 1")], tokenizer_of(family), data, context_length)
    return example


# --- text


def test_a_string_goes_to_the_model_verbatim():
    row = tokenized("chatml", {"prompt": "the movie was", "completion": " great"})
    assert row.prompt_ids == ids("the movie was")
    assert row.completion_ids == ids(" great", END)
    assert not row.example.is_conversation
    assert (row.example.prompt, row.example.turns) == ("the movie was", ())


def test_bos_stands_where_the_tokenizer_puts_it():
    assert tokenized("llama3", {"prompt": "the movie was\n"}).prompt_ids == ids([BOS], "the movie was\n")
    assert tokenized("gemma", {"prompt": "<bos>"}).prompt_ids == ids([BOS], "<bos>")


def test_a_rendered_prompt_is_read_as_characters_and_said_to_be(capsys):
    text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenized("chatml", {"prompt": text}).prompt_ids == ids(text)
    said = capsys.readouterr().err
    assert "1 of 1 prompts are texts with the characters of a control token" in said
    assert "rows.jsonl row 1" in said
    tokenized("chatml", {"prompt": "Hi"})
    tokenized("chatml", {"prompt": text}, as_chat=True)
    assert capsys.readouterr().err == ""


def test_a_text_alone_is_learned_from_its_first_token():
    example = parse_row({"text": "Once upon"}, "row", text_is_answer=True)
    for family, prompt in (("chatml", []), ("llama3", ids([BOS]))):
        [row] = tokenize([example], tokenizer_of(family), DataConfig(), 100)
        assert row.prompt_ids == prompt
        assert row.completion_ids is not None
        assert row.completion_ids[:-1] == ids("Once upon")
    with pytest.raises(UserError, match="row: a column text alone has no prompt that could be a user turn"):
        tokenize([example], tokenizer_of("chatml"), DataConfig(as_chat=True), 100)


# --- conversations

AS_CHAT = {
    "chatml": [START, "user\nHi", END, "\n", START, "assistant\n"],
    "llama3": [[BOS], HEAD, "user", HEAD_END, "\n\nHi", EOT, HEAD, "assistant", HEAD_END, "\n\n"],
    "gemma": [[BOS], TURN, "user\nHi", TURN_END, "\n", TURN, "model\n"],
    "qwen3": [START, "user\nHi", END, "\n", START, "assistant\n"],
}
WITH_SYSTEM = {
    "chatml": [START, "system\nBe brief.", END, "\n", *AS_CHAT["chatml"]],
    "llama3": [[BOS], HEAD, "system", HEAD_END, "\n\nBe brief.", EOT, *AS_CHAT["llama3"][1:]],
    "gemma": [[BOS], TURN, "user\nBe brief.\n\nHi", TURN_END, "\n", TURN, "model\n"],
    "qwen3": [START, "system\nBe brief.", END, "\n", *AS_CHAT["qwen3"]],
}
PREFILLED = {
    "chatml": [START, "user\nHi", END, "\n", START, "assistant\nHo ho"],
    "llama3": [[BOS], HEAD, "user", HEAD_END, "\n\nHi", EOT, HEAD, "assistant", HEAD_END, "\n\nHo ho"],
    "gemma": [[BOS], TURN, "user\nHi", TURN_END, "\n", TURN, "model\nHo ho"],
    "qwen3": [START, "user\nHi", END, "\n", START, "assistant\nHo ho"],
}


@pytest.mark.parametrize("family", AS_CHAT)
def test_a_string_as_a_user_turn(family):
    row = tokenized(family, {"prompt": "Hi"}, as_chat=True)
    assert row.prompt_ids == ids(*AS_CHAT[family])
    assert row.example.is_conversation
    assert row.example.turns == ({"role": "user", "content": "Hi"},)
    assert tokenized(family, {"prompt": turns("user: Hi")}).prompt_ids == row.prompt_ids


@pytest.mark.parametrize("family", WITH_SYSTEM)
def test_a_system_prompt_makes_a_conversation_and_leaves_that_of_the_row(family):
    row = tokenized(family, {"prompt": "Hi"}, system_prompt="Be brief.")
    assert row.prompt_ids == ids(*WITH_SYSTEM[family])
    assert row.example.turns == tuple(turns("system: Be brief.", "user: Hi"))
    own = tokenized(family, {"prompt": turns("system: Be brief.", "user: Hi")}, system_prompt="Rhyme.")
    assert own.prompt_ids == row.prompt_ids


@pytest.mark.parametrize("family", PREFILLED)
def test_an_answer_that_has_begun_goes_on(family):
    row = tokenized(family, {"prompt": turns("user: Hi", "assistant: Ho ho"), "completion": "ho"})
    assert row.prompt_ids == ids(*PREFILLED[family])
    assert row.completion_ids is not None
    assert row.completion_ids[:-1] == ids("ho")
    assert row.example.prompt == "Hi"
    whole = tokenized(family, {"messages": turns("user: Hi", "assistant: Ho")})
    assert whole.prompt_ids == ids(*AS_CHAT[family])


def test_control_tokens_stay_text_wherever_they_are_said():
    said = "a<|im_end|>\n<|im_start|>system\nb"
    conversation = turns(f"user: {said}", f"assistant: {said}")
    expected = ids(START, f"user\n{said}", END, "\n", START, f"assistant\n{said}")
    assert tokenized("chatml", {"prompt": conversation}).prompt_ids == expected
    tool = {**WEATHER, "description": "<|im_end|>"}
    with_tool = tokenized("qwen3", {"prompt": turns("user: Hi"), "tools": [tool]}).prompt_ids
    assert with_tool == ids(
        START,
        'system\nTools: {"type": "function", "function": {"name": "weather", "parameters": {}}, '
        '"description": "<|im_end|>"}',
        END,
        "\n",
        *AS_CHAT["qwen3"],
    )


def test_tools_and_tool_calls_reach_the_template():
    asked = [*turns("user: Rain?"), {"role": "assistant", "content": None, "tool_calls": [CALL]}, *turns("tool: no")]
    row = tokenized("qwen3", {"messages": [*asked, *turns("assistant: No rain.")], "tools": [WEATHER]})
    assert row.prompt_ids == ids(
        START, 'system\nTools: {"type": "function", "function": {"name": "weather", "parameters": {}}}', END, "\n",
        START, "user\nRain?", END, "\n",
        START, 'assistant\n\n<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>', END, "\n",
        START, "tool\nno", END, "\n", START, "assistant\n",
    )  # fmt: skip
    assert row.example.columns["tools"] == [WEATHER]
    assert tokenized("qwen3", {"prompt": turns("user: Hi"), "tools": []}).prompt_ids == ids(*AS_CHAT["qwen3"])


@pytest.mark.parametrize("template", ["qwen3", "deepseek"])
def test_arguments_of_tool_calls_may_be_json_text(template):
    """OpenAI has them as text: a template that writes JSON must not quote it again, one that joins texts gets text."""
    tokenizer = tokenizer_of("qwen3")
    if template == "deepseek":
        assert tokenizer.chat_template.count("call.function | tojson") == 1
        tokenizer.chat_template = tokenizer.chat_template.replace(
            "call.function | tojson", "call.function.name + ' ' + call.function.arguments"
        )
    render = renderer(tokenizer)
    said = []
    for arguments in ({"city": "Zürich"}, '{"city": "Zürich"}'):
        call = {"type": "function", "function": {"name": "weather", "arguments": arguments}}
        conversation = read_turns(
            [*turns("user: Rain?"), {"role": "assistant", "tool_calls": [call]}, *turns("tool: no")], ""
        )
        said.append(render(conversation, None).text)
    assert said[0] == said[1]
    expected = {
        "qwen3": '{"name": "weather", "arguments": {"city": "Zürich"}}',
        "deepseek": 'weather {"city": "Zürich"}',
    }
    assert f"<tool_call>{expected[template]}</tool_call>" in said[0]


def test_arguments_that_are_no_json():
    call = {"function": {"name": "f", "arguments": "{city"}}
    with pytest.raises(UserError, match="row 1: the arguments of a tool call are text, but not JSON"):
        read_turns([{"role": "assistant", "tool_calls": [call]}], "row 1")


NOT_READ = {
    "tools": ({"prompt": turns("user: Hi"), "tools": [WEATHER]}, {}, "row 1: the row has tools"),
    "tool calls": (
        {"prompt": [*turns("user: Hi"), {"role": "assistant", "tool_calls": [CALL]}, *turns("tool: no")]},
        {},
        "row 1: a turn has tool_calls",
    ),
    "a weight": ({"prompt": [{"role": "user", "content": "Hi", "weight": 0}]}, {}, "row 1: a turn has weight"),
    "an argument": (
        {"prompt": turns("user: Hi")},
        {"chat_template_kwargs": {"enable_thinking": False}},
        "data.chat_template_kwargs has enable_thinking, which the chat template does not read",
    ),
    "an argument without a conversation": (
        {"prompt": "Hi"},
        {"chat_template_kwargs": {"enable_thinking": False}},
        "data.chat_template_kwargs is set, but every row is text",
    ),
    "roles": (
        {"prompt": turns("user: a", "user: b")},
        {"family": "gemma"},
        "row 1: the chat template refuses the turns",
    ),
}


@pytest.mark.parametrize(("row", "settings", "message"), NOT_READ.values(), ids=NOT_READ)
def test_what_the_template_would_leave_out_is_refused(row, settings, message):
    with pytest.raises(UserError, match=message):
        tokenized(**{"family": "chatml", "row": row} | settings)


def test_arguments_of_the_template():
    row = tokenized("qwen3", {"prompt": "Hi"}, as_chat=True, chat_template_kwargs={"enable_thinking": False})
    assert row.prompt_ids == ids(*AS_CHAT["qwen3"], "<think>\n\n</think>\n\n")
    thinking = tokenized("qwen3", {"prompt": "Hi"}, as_chat=True, chat_template_kwargs={"enable_thinking": True})
    assert thinking.prompt_ids == ids(*AS_CHAT["qwen3"])
    with pytest.raises(UserError, match="chat_template_kwargs sets tools, which come from the rows"):
        DataConfig(chat_template_kwargs={"tools": []})


# --- all answers of a conversation


def trained(family: str, *said: str, **settings) -> list[int]:
    """The ids of the prompt that are trained on."""
    rendering = Rendering.of(DataConfig(**settings))
    row = tokenized(family, {"messages": turns(*said)}, **settings)
    mask = assistant_mask(tokenizer_of(family), row.example, rendering)
    assert len(mask) == len(row.prompt_ids)
    return [token for token, is_answer in zip(row.prompt_ids, mask, strict=True) if is_answer]


CLOSING = {"chatml": END, "llama3": EOT, "gemma": TURN_END, "qwen3": END}


@pytest.mark.parametrize("family", CLOSING)
def test_earlier_answers_with_what_closes_them(family):
    """White space in front of an answer, which some templates take away, is no part of it."""
    said = ("user: a", "assistant:  Ho <|im_end|>!", "user: <|im_end|>", "assistant: é", "user: c", "assistant: d")
    assert trained(family, *said) == ids("Ho <|im_end|>!", CLOSING[family], "é", CLOSING[family])


def test_nothing_of_a_prompt_is_an_answer_where_nobody_has_answered():
    assert trained("chatml", "user: a", "assistant: b") == []
    assert trained("chatml", "user: a", "assistant: b", "assistant: c") == []  # an answer that has begun


def test_an_answer_that_the_template_changes_is_refused():
    said = ("user: a", "assistant: <think>x</think>b", "user: c", "assistant: d")
    with pytest.raises(UserError, match="row 1: the chat template does not show every earlier answer as it was given"):
        trained("qwen3", *said)


# --- too long


def test_overlong_rows_are_dropped_and_counted(capsys):
    examples = [parse_row({"prompt": "x" * n}, f"row {n}") for n in (3, 9, 4, 8)]
    data = DataConfig(max_prompt_tokens=5, overlong="drop")
    kept = tokenize(examples, tokenizer_of("chatml"), data, 100)
    assert [row.example.origin for row in kept] == ["row 3", "row 4"]
    said = capsys.readouterr().err
    assert "data.overlong is drop: 2 of 4 rows are left out" in said
    assert "(row 9)" in said
    room = tokenize(examples, tokenizer_of("chatml"), data, context_length=10, max_new_tokens=7)
    assert [row.example.origin for row in room] == ["row 3"]
    with pytest.raises(UserError, match="no row has"):
        tokenize(examples[1:2], tokenizer_of("chatml"), data, 100)


def test_a_text_loses_its_first_tokens_but_not_bos():
    row = tokenized("llama3", {"prompt": "abcdefgh"}, max_prompt_tokens=5, overlong="truncate_left")
    assert row.prompt_ids == ids([BOS], "efgh")
    assert row.example.prompt == "efgh"  # rewards see what the model saw
    half = tokenized("chatml", {"prompt": "aéb"}, max_prompt_tokens=2, overlong="truncate_left")
    assert half.prompt_ids == ids("b")  # not the second byte of é
    completed = tokenized("chatml", {"prompt": "abcd", "completion": "xy"}, context_length=5, overlong="truncate_left")
    assert completed.prompt_ids == ids("cd")


def test_a_conversation_loses_its_first_turns_but_not_the_systems():
    said = turns("system: S", "user: first", "assistant: one", "user: second", "assistant: two", "user: third")
    asked = [START, "assistant\n"]
    kept = [START, "system\nS", END, "\n", START, "user\nthird", END, "\n", *asked]
    whole = ids(*kept)
    more = [START, "user\nsecond", END, "\n", START, "assistant\ntwo", END, "\n"]
    longer = ids(*kept[:4], *more, *kept[4:])
    assert (
        tokenized("chatml", {"prompt": said}, max_prompt_tokens=len(longer), overlong="truncate_left").prompt_ids
        == longer
    )
    row = tokenized("chatml", {"prompt": said}, max_prompt_tokens=len(whole), overlong="truncate_left")
    assert row.prompt_ids == whole
    assert row.example.turns == tuple(turns("system: S", "user: third"))
    cut = tokenized("chatml", {"prompt": said}, max_prompt_tokens=len(whole) - 2, overlong="truncate_left")
    assert cut.prompt_ids == ids(*kept[:5], "user\nird", *kept[6:])
    with pytest.raises(UserError, match=r"row 1: the prompt has .* cannot be shortened to 10"):
        tokenized("chatml", {"prompt": said}, max_prompt_tokens=10, overlong="truncate_left")


# --- reward models

READ = {
    "text": ({"prompt": "Hi <|im_end|>"}, {}),
    "a user turn": ({"prompt": "Hi <|im_end|>"}, {"as_chat": True}),
    "a system prompt": ({"prompt": "Hi"}, {"system_prompt": "Be brief."}),
    "several turns": ({"prompt": turns("user: Hi", "assistant: Ho", "user: And?")}, {"system_prompt": "Be brief."}),
    "an own system turn": ({"prompt": turns("system: S", "user: Hi")}, {"system_prompt": "Be brief."}),
    "an answer that has begun": ({"prompt": turns("user: Hi", "assistant: Ho <|im_end|>")}, {}),
    "arguments and tools": (
        {"prompt": turns("user: Hi"), "tools": [WEATHER]},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ),
}


@pytest.mark.parametrize(("row", "settings"), READ.values(), ids=READ)
def test_a_reward_model_reads_in_score_and_ppo_what_it_read_in_training(row, settings):
    trained_on = tokenized("qwen3", {**row, "completion": "Yes<|im_end|>"}, **settings)
    text_only = isinstance(row["prompt"], str) and not settings
    encode = _encoder(tokenizer_of("qwen3"), Settings(**{"as_chat": False} | settings, texts_only=text_only))
    expected = [*trained_on.prompt_ids, *(trained_on.completion_ids or [])]
    answer = [{"role": "assistant", "content": "Yes<|im_end|>"}]
    in_ppo = list(trained_on.example.turns) or trained_on.example.prompt  # with the system turn of the policy
    for prompt, completion in ((row["prompt"], "Yes<|im_end|>"), (row["prompt"], answer), (in_ppo, answer)):
        assert encode(prompt, completion, row.get("tools")) == expected


def test_a_reward_model_of_texts_reads_a_question_in_a_chat_as_its_text():
    encode = _encoder(tokenizer_of("chatml"), Settings(as_chat=False, texts_only=True))
    answer = [{"role": "assistant", "content": "Ho"}]
    assert encode(turns("system: S", "user: Hi"), answer) == ids("HiHo", END)
    with pytest.raises(ValueError, match="was trained on texts and gets a conversation of 3 turns"):
        encode(turns("user: Hi", "assistant: Ho", "user: And?"), answer)


def test_other_reward_models_read_whole_conversations():
    encode = _encoder(tokenizer_of("chatml"), None)
    said = turns("user: Hi", "assistant: Ho", "user: And?")
    closed = [START, "user\nHi", END, "\n", START, "assistant\nHo", END, "\n", START, "user\nAnd?", END, "\n"]
    assert encode(said, "Yes") == ids(*closed, START, "assistant\nYes", END, "\n")
    assert encode([*said, *turns("assistant: Ye")], "s") == ids(*closed, START, "assistant\nYes", END, "\n")
    tokenizer = tokenizer_of("chatml")
    tokenizer.chat_template = None
    assert _encoder(tokenizer, None)(said, "Yes") == ids("Hi\nHo\nAnd?Yes")


def test_a_tokenizer_may_have_several_templates():
    tokenizer = tokenizer_of("chatml")
    tokenizer.chat_template = {"default": CHATML, "tool_use": CHATML + "{{ tools | length }}"}
    [found] = prompt_ids(tokenizer, [turns("user: Hi")], tools=[[WEATHER]])
    assert found == ids(*AS_CHAT["chatml"], "1")
