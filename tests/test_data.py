"""Formats, limits, and what is said about rows that are wrong."""

import datasets
import pytest
from tiny_data import write_jsonl

from rlhf.config import DataConfig
from rlhf.data.examples import check_fits, collate_columns, load_examples, tokenize
from rlhf.data.parsing import parse_row
from rlhf.errors import UserError
from rlhf.models.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_models):
    return load_tokenizer(str(tiny_models["gpt2"]))


def test_all_formats_mean_the_same():
    rows = [
        {"prompt": "Hi", "completion": "Ho", "family": "x"},
        {
            "prompt": [{"role": "user", "content": "Hi"}],
            "completion": [{"role": "assistant", "content": "Ho"}],
            "family": "x",
        },
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}], "family": "x"},
    ]
    for row in rows:
        example = parse_row(row, "row")
        assert (example.prompt, example.completion) == ("Hi", "Ho")
        assert example.columns == {"family": "x", "reference": "Ho"}
    assert parse_row({"prompt": "Hi"}, "row").completion is None


def test_earlier_turns_stay_in_the_prompt():
    turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Ho"), ("user", "And?"), ("assistant", "Yes")]
    example = parse_row({"messages": [{"role": role, "content": content} for role, content in turns]}, "row")
    assert [message["content"] for message in example.turns] == ["Be brief.", "Hi", "Ho", "And?"]
    assert (example.prompt, example.completion) == ("And?", "Yes")


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "folder"])
def test_sources_agree(tmp_path, kind):
    rows = [{"prompt": f"p{n}", "completion": f"c{n}", "level": n} for n in range(3)]
    if kind == "jsonl":
        path = write_jsonl(tmp_path / "rows.jsonl", rows)
    elif kind == "parquet":
        path = str(tmp_path / "rows.parquet")
        datasets.Dataset.from_list(rows).to_parquet(path)
    else:  # what a hub dataset looks like once fetched: the name is handed to datasets.load_dataset
        path = str(tmp_path / "hub_dataset")
        (tmp_path / "hub_dataset").mkdir()
        write_jsonl(tmp_path / "hub_dataset" / "train.jsonl", rows)
    examples = load_examples(path, "train")
    assert [(e.prompt, e.completion, e.columns["level"]) for e in examples] == [
        ("p0", "c0", 0),
        ("p1", "c1", 1),
        ("p2", "c2", 2),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "a"}\n{"completion": "b"}\n', "rows.jsonl row 2: prompt is missing or empty"),
        ('{"prompt": ""}\n', "row 1: prompt is missing or empty"),
        ('{"prompt": "a", "completion": ""}\n', "row 1: completion is empty"),
        ('{"prompt": "a"}\n{not json}\n', "row 2: not a JSON object"),
        ('["a"]\n', "row 1: the row is list"),
        ('{"prompt": 7}\n', "row 1: prompt is int"),
        ('{"prompt": [{"role": "user"}]}\n', "row 1: prompt: each message must have a role"),
        ('{"messages": [{"role": "user", "content": "a"}]}\n', "row 1: messages must end with an assistant turn"),
        ("\n\n", "rows.jsonl is empty"),
    ],
)
def test_bad_rows_are_named(tmp_path, content, message):
    (tmp_path / "rows.jsonl").write_text(content)
    with pytest.raises(UserError, match=message):
        load_examples(str(tmp_path / "rows.jsonl"), "train")


def test_every_bad_row_is_listed_up_to_twenty(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": ""}] * 23)
    with pytest.raises(UserError) as caught:
        load_examples(path, "train")
    assert str(caught.value).count("prompt is missing") == 20
    assert "and 3 more" in str(caught.value)


def test_missing_file_is_named():
    with pytest.raises(UserError, match=r"nowhere\.jsonl' does not exist"):
        load_examples("nowhere.jsonl", "train")


def test_prompt_is_rendered_by_the_chat_template_and_completion_ends_with_eos(tokenizer):
    examples = [parse_row({"prompt": "Show a button.", "completion": "return <button>"}, "row")]
    data = DataConfig(train="x", system_prompt="You write React.")
    [row] = tokenize(examples, tokenizer, data, 96)
    assert tokenizer.decode(row.prompt_ids) == "You write React.\nShow a button.\n"
    assert tokenizer.decode(row.completion_ids) == "return <button>" + tokenizer.eos_token
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_long_completions_are_left_out_and_long_prompts_refused(tokenizer):
    short = parse_row({"prompt": "a", "completion": "b"}, "short")
    long = parse_row({"prompt": "a", "completion": "b " * 50}, "long")
    kept = tokenize([short, long], tokenizer, DataConfig(train="x", max_completion_tokens=10), 96)
    assert [row.example.origin for row in kept] == ["short"]
    with pytest.raises(
        UserError, match=r"long: prompt and completion have \d+ tokens, more than the model's context of 96"
    ):
        tokenize([long], tokenizer, DataConfig(train="x"), 96)
    with pytest.raises(UserError, match=r"no row has a completion within data\.max_completion_tokens 2"):
        tokenize([long], tokenizer, DataConfig(train="x", max_completion_tokens=2), 96)
    with pytest.raises(UserError, match=r"verbose: the prompt has \d+ tokens, more than data.max_prompt_tokens 5"):
        tokenize(
            [parse_row({"prompt": "a " * 30}, "verbose")], tokenizer, DataConfig(train="x", max_prompt_tokens=5), 96
        )


def test_prompt_must_leave_room_for_the_response(tokenizer):
    prompts = tokenize([parse_row({"prompt": "a"}, "file row 3")], tokenizer, DataConfig(train="x"), 96)
    check_fits(prompts, 90, 96)
    with pytest.raises(UserError, match=r"file row 3: prompt of \d+ tokens \+ sampling.max_new_tokens 96"):
        check_fits(prompts, 96, 96)


def test_columns_are_collated_with_none_for_gaps():
    examples = [parse_row({"prompt": "a", "x": 1}, "1"), parse_row({"prompt": "b", "completion": "c"}, "2")]
    assert collate_columns(examples) == {"x": [1, None], "reference": [None, "c"]}
