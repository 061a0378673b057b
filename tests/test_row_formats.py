"""The rows that people have, under the names that they have: what each becomes, and what is said of those refused."""

import json

import datasets
import pytest
from chat_templates import ids, tokenizer_of
from tiny_data import write_jsonl

from rlhf.config import DataConfig, EvaluateConfig, GenerateConfig, ModelConfig, SFTConfig
from rlhf.data.examples import load_examples, load_held_out, load_training, tokenize
from rlhf.data.parsing import parse_row
from rlhf.data.preferences import load_training_pairs, parse_pair, tokenize_pairs
from rlhf.data.sources import parse_rows
from rlhf.errors import UserError
from rlhf.rewards import RewardSpec
from rlhf.stages.sft import run_sft

HI, HO, AND, YES = (
    {"role": role, "content": content}
    for role, content in (("user", "Hi"), ("assistant", "Ho"), ("user", "And?"), ("assistant", "Yes"))
)
CALL = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "f"}}]}


# --- cells of tables


@pytest.mark.parametrize("spelled", [json.dumps, str], ids=["JSON", "Python"])
def test_a_conversation_in_a_cell(spelled):
    """What pandas writes into a CSV, and what people write there by hand."""
    assert parse_row({"prompt": spelled([HI, HO, AND])}, "row") == parse_row({"prompt": [HI, HO, AND]}, "row")
    assert parse_row({"messages": spelled([HI, HO])}, "row") == parse_row({"messages": [HI, HO]}, "row")
    pair = {"chosen": [HI, HO], "rejected": [HI, YES]}
    assert parse_pair({name: spelled(value) for name, value in pair.items()}, "row") == parse_pair(pair, "row")


@pytest.mark.parametrize("text", ["[{", '[{"a": 1}]', "[1, 2]", "[{'role': open}]"])
def test_text_that_only_looks_like_a_conversation(text):
    assert parse_row({"prompt": text}, "row").given == text


# --- names of columns


@pytest.mark.parametrize("name", ["prompt", "query", "question", "text"])
def test_what_a_prompt_is_called(name):
    example = parse_row({name: "Hi", "label": 1}, "row")
    assert (example.given, example.completion, example.columns["label"]) == ("Hi", None, 1)
    assert example.columns.get(name) == (None if name == "prompt" else "Hi")  # for rewards that ask for it


def test_question_and_answer():
    example = parse_row({"question": "1 + 1?", "answer": "2"}, "row")
    assert (example.given, example.completion) == ("1 + 1?", "2")
    assert example.columns == {"question": "1 + 1?", "answer": "2", "reference": "2"}
    number = parse_row({"question": "1 + 1?", "answer": 2}, "row")
    assert (number.completion, number.columns["answer"]) == (None, 2)


def test_columns_under_other_names():
    columns = {"prompt": "problem", "reference": "answer", "solution": "answer"}
    example = parse_row({"problem": "1 + 1?", "answer": "2", "text": "x"}, "row", columns)
    assert (example.given, example.completion) == ("1 + 1?", None)
    assert (example.columns["reference"], example.columns["solution"]) == ("2", "2")
    messages = parse_row({"dialog": [HI, HO]}, "row", {"messages": "dialog"})
    assert (messages.turns, messages.completion) == ((HI,), "Ho")
    named = parse_row({"question": "Hi", "messages": [AND, YES]}, "row", {"prompt": "question"})
    assert (named.given, named.completion) == ("Hi", None)
    pair = parse_pair({"q": "Hi", "good": "a", "bad": "b"}, "row", {"prompt": "q", "chosen": "good", "rejected": "bad"})
    assert [side.completion for side in pair] == ["a", "b"]


def test_sharegpt():
    said = [("system", "S"), ("human", "Hi"), ("gpt", "Ho"), ("human", "And?"), ("gpt", "Yes")]
    row = {"conversations": [{"from": speaker, "value": text, "weight": None} for speaker, text in said]}
    example = parse_row(row, "row")
    assert example.turns == ({"role": "system", "content": "S"}, HI, HO, AND)
    assert (example.completion, example.prompt) == ("Yes", "And?")


def test_text_and_turns_in_one_row_are_a_conversation():
    for row in ({"prompt": "Hi", "completion": [HO]}, {"prompt": [HI], "completion": "Ho"}):
        example = parse_row(row, "row")
        assert (example.turns, example.completion) == ((HI,), "Ho")


def test_keys_without_a_value_are_none():
    """Parquet gives every turn the keys of all turns."""
    turn = {**HI, "tool_calls": None, "name": None}
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"a": {"type": "string"}, "b": None}}}]
    example = parse_row({"prompt": [turn], "tools": tools}, "row")
    assert example.turns == (HI,)
    assert example.tools == [{"type": "function", "function": {"name": "f", "parameters": {"a": {"type": "string"}}}}]
    assert parse_row({"prompt": [HI], "tools": json.dumps(tools)}, "row").tools == example.tools


REFUSED = {
    "tool calls at the end": (
        {"messages": [HI, CALL]},
        "row 7: messages ends with an assistant turn that has tool_calls; only content can be trained on",
    ),
    "reasoning at the end": ({"messages": [HI, {**HO, "reasoning_content": "x"}]}, "that has reasoning_content"),
    "an empty last answer": (
        {"messages": [HI, {"role": "assistant", "content": ""}]},
        "row 7: messages ends with an assistant turn that says nothing",
    ),
    "a null last answer": (
        {"messages": [HI, {"role": "assistant", "content": None}]},
        "row 7: messages: each message must have a role and a string as content",
    ),
    "several turns": ({"prompt": [HI], "completion": [HO, AND, YES]}, "row 7: completion has 3 turns; it must be one"),
    "an answer of the user": (
        {"prompt": [HI], "completion": [AND]},
        "row 7: completion ends with a turn of the role 'user'; it must end with an assistant turn",
    ),
    "an answer without a call's result": ({"prompt": [HI, CALL]}, "row 7: prompt ends with tool calls"),
    "another speaker": ({"conversations": [{"from": "narrator", "value": "x"}]}, "a turn is from 'narrator'"),
    "two prompts": ({"query": "a", "text": "b"}, r"row 7: query and text could each be the prompt; say which"),
    "tools": ({"prompt": [HI], "tools": "["}, "row 7: tools is text, but not JSON"),
    "a tool": ({"prompt": [HI], "tools": ["f"]}, "row 7: tools must be a list of JSON schemas"),
    "no prompt": (
        {"id": 1, "instruction": "x"},
        r"row 7: prompt is missing or empty; every row needs one \(the row has id, instruction; data.columns says",
    ),
    "a name for rewards": ({"prompt": "a", "trainer_state": 1}, "row 7: a column is called trainer_state"),
}


@pytest.mark.parametrize(("row", "message"), REFUSED.values(), ids=REFUSED)
def test_nothing_is_lost_in_silence(row, message):
    with pytest.raises(UserError, match=message):
        parse_row(row, "row 7")


def test_a_column_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(
        UserError, match=r"data.columns.prompt is 'quest', but there is no such column \(the row has q, a"
    ):
        parse_row({"q": "x", "a": "y"}, "row", {"prompt": "quest"})


# --- pairs

HUMAN = "\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: And?\n\nAssistant:"


def test_a_pair_of_conversations_with_the_prompt_beside_them():
    """As in ultrafeedback: the prompt is text, chosen and rejected are whole conversations."""
    no = {"role": "assistant", "content": "No"}
    for prompt, before in (
        ("Hi", [HI]),
        ("Hi", [HI, HO, AND]),
        ("And?", [HI, HO, AND]),
        ([HI], [HI, HO, AND]),
        (None, [HI, HO, AND]),
        ("", [HI, HO, AND]),
    ):
        row = {"prompt": prompt, "chosen": [*before, YES], "rejected": [*before, no], "messages": [*before, YES]}
        chosen, rejected = parse_pair(row, "row")
        assert chosen.turns == rejected.turns == tuple(before)
        assert (chosen.completion, rejected.completion) == ("Yes", "No")
    chosen, rejected = parse_pair({"prompt": [HI], "chosen": [HO, AND, YES], "rejected": [HO, AND, no]}, "row")
    assert chosen.turns == rejected.turns == (HI, HO, AND)


def test_transcripts_as_text_and_as_turns():
    chosen, rejected = parse_pair({"chosen": f"{HUMAN} Yes", "rejected": f"{HUMAN} No"}, "row")
    assert (chosen.given, chosen.completion, rejected.completion) == (HUMAN, " Yes", " No")
    start, end = ["<|im_start|>"], ["<|im_end|>"]
    tokenizer, pairs = tokenizer_of("chatml"), [(chosen, rejected)]
    [as_text] = tokenize_pairs(pairs, tokenizer, DataConfig(), 500)
    assert as_text.chosen_ids == ids(f"{HUMAN} Yes", end)
    [as_turns] = tokenize_pairs(pairs, tokenizer, DataConfig(as_chat=True), 500)
    before = [start, "user\nHi", end, "\n", start, "assistant\nHo", end, "\n", start, "user\nAnd?", end, "\n"]
    assert as_turns.chosen_ids == ids(*before, start, "assistant\nYes", end)
    assert as_turns.rejected_ids == ids(*before, start, "assistant\nNo", end)


def test_tools_reach_both_sides_of_a_pair():
    tools = [{"type": "function", "function": {"name": "f"}}]
    row = {"prompt": [HI], "chosen": [HO], "rejected": [YES], "tools": tools}
    [pair] = tokenize_pairs([parse_pair(row, "row")], tokenizer_of("qwen3"), DataConfig(), 500)
    shown = ids('system\nTools: {"type": "function", "function": {"name": "f"}}')
    for side in (pair.chosen_ids, pair.rejected_ids):
        assert side[1 : 1 + len(shown)] == shown
    assert pair.columns["tools"] == tools


REFUSED_PAIRS = {
    "other turns": (
        {"chosen": [HI, HO, AND, YES], "rejected": [HI, YES, AND, HO]},
        "must share every turn but the last",
    ),
    "another prompt": (
        {"prompt": "Bye", "chosen": [HI, HO], "rejected": [HI, YES]},
        "row 7: chosen and rejected are conversations of 2 turns, which do not contain the prompt",
    ),
    "one of each": ({"prompt": "Hi", "chosen": [HO], "rejected": "b"}, "one is text and one is a conversation"),
    "a call": (
        {"prompt": [HI], "chosen": [CALL], "rejected": [HO]},
        "row 7: chosen ends with an assistant turn that has",
    ),
    "the user's": ({"chosen": [HI, HO, AND], "rejected": [HI, HO, HI]}, "row 7: chosen ends with a turn of the role"),
    "transcripts": (
        {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: d"},
        "row 7: chosen and rejected must be one transcript up to the last answer",
    ),
    "an empty answer": (
        {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: "},
        "row 7: rejected ends with an answer that says nothing",
    ),
    "no prompt": ({"chosen": "a", "rejected": "b", "id": 1}, r"prompt is missing .*the row has chosen, rejected, id"),
}


@pytest.mark.parametrize(("row", "message"), REFUSED_PAIRS.values(), ids=REFUSED_PAIRS)
def test_nothing_of_a_pair_is_lost_in_silence(row, message):
    with pytest.raises(UserError, match=message):
        parse_pair(row, "row 7")


# --- files


def rows_of(path) -> list:
    return parse_rows(str(path), "train", lambda row, origin: (row, origin.rsplit("/", 1)[-1]))


def test_an_array_of_rows(tmp_path):
    file = tmp_path / "rows.json"
    file.write_bytes(b'\xef\xbb\xbf \n[{"prompt": "a"},\n {"prompt": "b"}]')
    assert rows_of(file) == [({"prompt": "a"}, "rows.json row 1"), ({"prompt": "b"}, "rows.json row 2")]
    file.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    assert [row for row, _ in rows_of(file)] == [{"prompt": "a"}, {"prompt": "b"}]
    for text, message in (
        ('[{"a": 1, "a": 2}]', "the key 'a' is there twice"),
        ("[1", "not a JSON object"),
        ("[]", "empty"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=rf"rows\.json.*{message}"):
            rows_of(file)
    file.write_text('[{"prompt": "a"}, {"prompt": ""}, 3]')
    with pytest.raises(UserError, match=r"(?s)rows\.json row 2: prompt is missing.*rows\.json row 3: the row is int"):
        load_examples(str(file), "train")


def test_csv(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_bytes('\ufeffprompt,completion,level\r\n"Say ""é"", please",b,1\r\n\r\n"two\nlines",d,\r\n'.encode())
    assert rows_of(file) == [
        ({"prompt": 'Say "é", please', "completion": "b", "level": "1"}, "rows.csv row 1"),
        ({"prompt": "two\nlines", "completion": "d", "level": ""}, "rows.csv row 2"),
    ]
    for content, message in (
        (b"a,b\n1\n", "row 1 has 1 values, its head 2 names"),
        (b"a,a\n1,2\n", "the column 'a' is there twice"),
        ("a\né\n".encode("latin-1"), "cannot be read as CSV in UTF-8"),
        (b'a\n"1\n', "cannot be read as CSV"),
        (b"a\n", "is empty"),
        ("a\n1\n".encode("utf-16"), "is in UTF-16"),
    ):
        file.write_bytes(content)
        with pytest.raises(UserError, match=message):
            rows_of(file)
    file.write_text(f"prompt\n{'x' * 200_000}\n")  # longer than Python's own limit
    assert len(load_examples(str(file), "train")[0].prompt) == 200_000


def test_a_folder_of_all_kinds(tmp_path):
    (tmp_path / "train.csv").write_text("prompt\na\n")
    (tmp_path / "train.json").write_text('[{"prompt": "b"}]')
    write_jsonl(tmp_path / "train.jsonl", [{"prompt": "c"}])
    (tmp_path / "test.csv").write_text("prompt\nd\n")
    assert [row["prompt"] for row, _ in rows_of(tmp_path)] == ["a", "b", "c"]


def test_the_subset_of_a_hub_dataset(monkeypatch, tmp_path):
    asked = []

    def load_dataset(name, subset, split):  # the hub cannot be reached from here
        asked.append((name, subset, split))
        return [{"question": "1 + 1?", "answer": "2"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    file = write_jsonl(tmp_path / "held_out.jsonl", [{"prompt": "a"}])
    data = DataConfig(train="openai/gsm8k", name="main", eval=file)
    assert [example.completion for example in load_training(data)] == ["2"]
    assert [example.prompt for example in load_held_out(data)] == ["a"]
    assert asked == [("openai/gsm8k", "main", "train")]
    with pytest.raises(UserError, match=r"data.name is 'main', the subset of a hub dataset, but the data are files"):
        load_training(DataConfig(train=file, name="main"))
    for split, load in (("train_split", load_training), ("eval_split", load_held_out)):
        with pytest.raises(UserError, match=f"data.{split} is 'x', a split of a hub dataset, but .* on this machine"):
            load(DataConfig(train=file, eval=file, **{split: "x"}))


def test_settings_name_the_columns_of_both_files(tmp_path):
    file = write_jsonl(tmp_path / "rows.jsonl", [{"q": "Hi", "good": "a", "bad": "b"}])
    data = DataConfig(train=file, columns={"prompt": "q", "chosen": "good", "rejected": "bad", "completion": "good"})
    assert [example.completion for example in load_training(data)] == ["a"]
    assert [rejected.completion for _, rejected in load_training_pairs(data)] == ["b"]


# --- stages


def test_stages_that_need_training_data_say_so():
    model, rewards = ModelConfig(name_or_path="gpt2"), [RewardSpec(path="length")]
    with pytest.raises(UserError, match=r"data.train is not set"):
        SFTConfig(model=model, data=DataConfig())
    with pytest.raises(UserError, match=r"data.eval is not set"):
        EvaluateConfig(model=model, data=DataConfig(), rewards=rewards)
    EvaluateConfig(model=model, data=DataConfig(eval="x.jsonl"), rewards=rewards)
    GenerateConfig(model=model, data=DataConfig(as_chat=True), prompt=["Hi"])
    with pytest.raises(UserError, match=r"either prompt or data.train"):
        GenerateConfig(model=model, data=DataConfig(train="x.jsonl"), prompt=["Hi"])


def sft(folder, model, rows, **settings):
    data = DataConfig(train=write_jsonl(folder / "rows.jsonl", rows))
    return SFTConfig(output_dir=str(folder / "run"), model=ModelConfig(name_or_path=str(model)), data=data, **settings)


def test_sft_on_all_answers_is_another_training_than_on_the_last(tmp_path, tiny_models):
    rows = [{"messages": [HI, {**HO, "content": f"Ho {number}"}, AND, YES]} for number in range(4)]
    losses = {}
    for train_on in ("last", "all"):
        (tmp_path / train_on).mkdir()
        config = sft(
            tmp_path / train_on, tiny_models["gpt2"], rows, train_on=train_on, num_train_epochs=1, batch_size=4
        )
        lines = (run_sft(config).parent / "metrics.jsonl").read_text().splitlines()
        losses[train_on] = json.loads(lines[0])["sft/loss"]
    assert losses["last"] != losses["all"]
    with pytest.raises(UserError, match="train_on is all, but no row has an answer before its last"):
        run_sft(sft(tmp_path, tiny_models["gpt2"], [{"messages": [HI, HO]}], train_on="all"))


def test_sft_on_texts_alone(tmp_path, tiny_models):
    rows = [{"text": f"Once upon a time {number}"} for number in range(4)]
    run_sft(sft(tmp_path, tiny_models["gpt2"], rows, num_train_epochs=1, batch_size=4))
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_the_same_prompt_is_found_as_text_and_as_turns(capsys):
    from rlhf.data.examples import warn_of_leak

    warn_of_leak([parse_row({"prompt": "Hi "}, "train")], [parse_row({"prompt": [HI]}, "eval row 1")])
    assert "1 of 1 held-out prompts are also in the training data, for example 'Hi'" in capsys.readouterr().err
    text = parse_row({"text": "Once"}, "train", text_is_answer=True)
    warn_of_leak([text], [parse_row({"text": "Once"}, "eval row 1", text_is_answer=True)])
    assert "for example 'Once'" in capsys.readouterr().err


def test_rows_may_differ_in_form(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "Hi"}, {"prompt": [HI]}, {"messages": [HI, HO]}])
    rows = tokenize(load_examples(path, "train"), tokenizer_of("chatml"), DataConfig(), 100)
    chat = ids(["<|im_start|>"], "user\nHi", ["<|im_end|>"], "\n", ["<|im_start|>"], "assistant\n")
    assert [row.prompt_ids for row in rows] == [ids("Hi"), chat, chat]
