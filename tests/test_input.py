"""Whatever stands in a config or a data file: it works, or it is refused in words that name it."""

import datetime
import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_data import write_jsonl

from rlhf.cli import STAGES, main
from rlhf.config import DataConfig, GenerateConfig, ModelConfig, PPOConfig, SamplingConfig
from rlhf.config.command_line import parse
from rlhf.data.chat import prompt_ids
from rlhf.data.examples import load_examples, tokenize, warn_of_leak
from rlhf.data.parsing import parse_row
from rlhf.data.preferences import load_pairs
from rlhf.errors import UserError
from rlhf.models.tokenizer import load_tokenizer
from rlhf.rewards import RewardError
from rlhf.rewards.learned import Settings, _encoder
from rlhf.stages.evaluate import policy_of
from rlhf.stages.generate import run_generate

FAST = settings(
    max_examples=30, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
BASE = {"model": {"name_or_path": "gpt2"}, "data": {"train": "a.jsonl"}, "rewards": [{"path": "length"}]}


def read_config(folder: Path, content: bytes | dict, stage: str = "ppo"):
    """The config in a file with this content."""
    file = folder / "config.yaml"
    file.write_bytes(content if isinstance(content, bytes) else yaml.safe_dump(content).encode())
    return parse(STAGES[stage].config_class, ["--config", str(file)])


def config_or_refusal(folder: Path, content: bytes | dict) -> PPOConfig | str:
    """The config in a file with this content, or what was said instead."""
    try:
        return read_config(folder, content)
    except (UserError, RewardError) as error:
        return str(error)


def is_a_line(refusal: str) -> bool:
    """Whether a refusal can be read in a terminal."""
    return 0 < len(refusal) <= 600 and "\n" not in refusal


def test_the_base_of_these_tests_is_a_config(tmp_path):
    assert read_config(tmp_path, BASE).model.name_or_path == "gpt2"


NUMBERS = st.sampled_from(
    [float("nan"), float("inf"), -float("inf"), -1, 0, -0.0, 1e-320, 1e308, 2**31, 2**63, 10**30, 10**400, True]
)
ANYTHING = st.recursive(
    NUMBERS | st.none() | st.text(max_size=6) | st.floats() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = ["output_dir", "model", "data", "rewards", "lora", "sampling", "updates", "batch_size", "learning_rate", "seed"]
KEYS += ["kl_coef", "gamma", "critic", "value_warmup", "checkpoint", "watch", "tracking", "score_clip", "processes"]
INNER_KEYS = ["r", "temperature", "stop", "every", "keep", "kl_limit", "samples", "train", "name_or_path", "path"]


@FAST
@given(change=st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=3))
def test_any_value_at_any_key_is_taken_or_refused(tmp_path_factory, change):
    folder = tmp_path_factory.mktemp("any")
    config = config_or_refusal(folder, BASE | change)
    if isinstance(config, str):
        assert is_a_line(config)
        return
    numbers = [value for value in vars(config).values() if isinstance(value, int | float)]
    assert all(abs(number) < (float("inf") if isinstance(number, float) else 2**32) for number in numbers)


@FAST
@given(section=st.sampled_from(KEYS), inner=st.dictionaries(st.sampled_from(INNER_KEYS), ANYTHING, min_size=1))
def test_any_value_inside_a_section_is_taken_or_refused(tmp_path_factory, section, inner):
    folder = tmp_path_factory.mktemp("inner")
    for value in (inner, [inner]):
        result = config_or_refusal(folder, BASE | {section: value})
        assert isinstance(result, PPOConfig) or is_a_line(result)


@FAST
@given(noise=st.binary(max_size=60) | st.text(alphabet="{}[]:,-&*!|>'\"#%@` \n\tab1.~?", max_size=40).map(str.encode))
def test_any_bytes_are_taken_or_refused(tmp_path_factory, noise):
    folder = tmp_path_factory.mktemp("noise")
    for content in (noise, yaml.safe_dump(BASE).encode() + noise):
        result = config_or_refusal(folder, content)
        assert isinstance(result, PPOConfig) or is_a_line(result)


LIST = "[x, x, x, x, x, x, x, x, x, x]"
BOMB = f"a0: &a0 {LIST}\n" + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(20))
REFUSED_CONFIGS = {
    "a key twice": ("seed: 1\nseed: 2", "key 'seed' is there twice"),
    "a nested key twice": (
        "sampling: {temperature: 1.0, temperature: 2.0}",
        "key 'sampling.temperature' is there twice",
    ),
    "alias bomb": (BOMB, "with its aliases spelled out it has more than 100000 values"),
    "an alias to itself": ("tracking: &t {samples: *t}", "an alias refers to what it is part of"),
    "depth": ("tracking: " + "[" * 100_000, "nested more than 40 deep"),
    "a number of 5000 digits": (
        "num_updates: 1" + "0" * 5000,
        "num_updates is 10000000000000000000...; it must be at most",
    ),
    "a tab": ("tracking:\n\t- a", "cannot start any token"),
    "an object": ("tracking: !!python/object/apply:os.getcwd []", "tracking is a python/object/apply"),
    "a class": ("lora: {class_path: os.getcwd}", "unknown key 'lora.class_path'"),
    "another file": ("config: /etc/passwd", "key 'config' would read another file"),
    "a private key": ("__path__: 1", "key '__path__' is not the name of an option"),
    "a number as key": ("1: 2", "key '1' is not the name of an option"),
    "two documents": ("---\nseed: 1", "expected a single document"),
    "not a number": ("kl_coef: .nan", "kl_coef is .nan; it must be a number"),
    "infinity": ("learning_rate: .inf", "learning_rate is inf; it must be a finite number"),
    "a negative seed": ("seed: -1", "seed is -1; it must be at least 0"),
    "a large seed": ("seed: 4294967296", "seed is 4294967296; it must be at most 4294967295"),
    "no path": ("output_dir: ' '", "output_dir is ' '; it must be a path"),
    "NUL in a path": ('output_dir: "a\\0b"', r"output_dir is 'a\x00b'; it must be a path"),
}


@pytest.mark.parametrize(("addition", "message"), REFUSED_CONFIGS.values(), ids=REFUSED_CONFIGS)
def test_refused_configs(tmp_path, addition, message):
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        read_config(tmp_path, (yaml.safe_dump(BASE, default_flow_style=None) + addition).encode())
    assert message in str(caught.value)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("content", [b"", b"- 1", b"7", b"null"])
def test_a_config_is_a_mapping(tmp_path, content):
    with pytest.raises(UserError, match="a config must be a mapping of keys to values, not"):
        read_config(tmp_path, content)


def test_a_list_for_a_section_names_the_section(tmp_path):
    with pytest.raises(UserError, match=r"model is \[1, 2\]; it must be a mapping"):
        read_config(tmp_path, BASE | {"model": [1, 2]})


def test_encodings_of_a_config(tmp_path):
    text = yaml.safe_dump(BASE | {"output_dir": "größe"}, allow_unicode=True)
    for content in (text.encode(), text.encode("utf-8-sig"), text.replace("\n", "\r\n").encode()):
        assert read_config(tmp_path, content).output_dir == "größe"
    for encoding in ("latin-1", "utf-16"):
        with pytest.raises(UserError, match="the config is not UTF-8 text"):
            read_config(tmp_path, text.encode(encoding))


def test_no_clipping_is_an_infinite_norm(tmp_path):
    assert read_config(tmp_path, BASE | {"max_grad_norm": float("inf")}).max_grad_norm == float("inf")
    with pytest.raises(UserError, match=r"max_grad_norm is \.nan; it must be a number"):
        read_config(tmp_path, BASE | {"max_grad_norm": float("nan")})


def test_anchors_and_merge_keys_work(tmp_path):
    content = yaml.safe_dump(BASE) + "sampling: &s {max_new_tokens: 7}\n"
    assert read_config(tmp_path, content.encode()).sampling.max_new_tokens == 7
    merged = content.replace("&s {", "{<<: &d {temperature: 0.5}, ")
    assert read_config(tmp_path, merged.encode()).sampling.temperature == 0.5


# --- rows

GOOD = b'{"prompt": "a", "completion": "b"}\n'
REFUSED_ROWS = {
    "latin-1": ('{"prompt": "é"}'.encode("latin-1"), "not a JSON object in UTF-8"),
    "NaN": (b'{"prompt": "a", "level": NaN}', "NaN is not JSON"),
    "too large": (b'{"prompt": "a", "level": 1e999}', "1e999 is too large for a number"),
    "a key twice": (b'{"prompt": "a", "prompt": "b"}', "the key 'prompt' is there twice"),
    "a nested key twice": (b'{"prompt": "a", "m": {"x": 1, "x": 2}}', "the key 'x' is there twice"),
    "surrogate": (rb'{"prompt": "a\ud800b"}', r"prompt holds \ud800, half of a surrogate pair"),
    "nested surrogate": (rb'{"prompt": "a", "m": {"x": ["\udfff"]}}', r"m.x holds \udfff"),
    "surrogate in a name": (rb'{"prompt": "a", "\ud800": 1}', r"the name of a column in the row holds \ud800"),
    "depth": (b'{"prompt": "a", "x": ' + b"[" * 100_000, "nested too deeply"),
    "null prompt": (b'{"prompt": null}', "prompt is missing or empty"),
    "null turn": (b'{"prompt": [null]}', "each message must have a role"),
    "role": (b'{"prompt": [{"role": 1, "content": "a"}]}', "each message must have a role"),
    "silent turn": (b'{"prompt": [{"role": "user", "content": ""}]}', "prompt is missing or empty"),
    "cut off": (b'{"prompt": "a", "compl', "not a JSON object"),
    "reserved": (b'{"prompt": "a", "completions": []}', "a column is called completions"),
}


@pytest.mark.parametrize(("row", "message"), REFUSED_ROWS.values(), ids=REFUSED_ROWS)
def test_refused_rows_are_all_named(tmp_path, row, message):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(GOOD + row + b"\n\n" + GOOD + row)
    with pytest.raises(UserError) as caught:
        load_examples(str(file), "train")
    for number in (2, 5):
        assert f"{file} row {number}: " in str(caught.value)
    assert str(caught.value).count(message) == 2


def test_rows_that_are_read_whatever_surrounds_them(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.strip() + b"\r\n\r\n   \n" + GOOD.strip())  # no line end at the end
    assert [(e.prompt, e.origin[-5:]) for e in load_examples(str(file), "train")] == [("a", "row 1"), ("a", "row 4")]
    file.write_bytes(GOOD.decode().encode("utf-16"))
    with pytest.raises(UserError, match="is in UTF-16; save it as UTF-8"):
        load_examples(str(file), "train")


def test_a_prompt_from_the_command_line_is_checked_like_a_row():
    with pytest.raises(UserError, match=r"--prompt: prompt holds \\udcff, half of a surrogate pair"):
        parse_row({"prompt": "\udcff"}, "--prompt")  # what Python makes of a byte that is not UTF-8


def test_mixed_kinds_of_prompts_and_nulls_in_columns(tmp_path):
    turns = [{"role": "user", "content": "a"}]
    rows = [{"prompt": "a", "level": 1}, {"prompt": turns, "level": "high"}, {"prompt": "a", "level": {"x": [None]}}]
    examples = load_examples(write_jsonl(tmp_path / "rows.jsonl", rows), "train")
    assert [e.prompt for e in examples] == ["a", "a", "a"]
    assert [e.columns["level"] for e in examples] == [1, "high", {"x": [None]}]


@FAST
@given(line=st.binary(max_size=80) | ANYTHING.map(lambda value: json.dumps(value).encode()))
def test_any_line_is_an_example_or_named(tmp_path_factory, line):
    file = tmp_path_factory.mktemp("line") / "rows.jsonl"
    file.write_bytes(GOOD + line)
    try:
        assert load_examples(str(file), "train")[0].prompt == "a"
    except UserError as error:
        assert str(file) in str(error)  # noqa: PT017


def test_a_line_of_ten_megabytes(tmp_path, tiny_models):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "a", "notes": "x" * 10**7}, {"prompt": "a b" * 10**5}])
    examples = load_examples(path, "train")
    with pytest.raises(
        UserError, match=r"row 2: the prompt has \d+ tokens, more than data.max_prompt_tokens"
    ) as caught:
        tokenize(examples, load_tokenizer(str(tiny_models["gpt2"])), DataConfig(train="x"), 96)
    assert len(str(caught.value)) < 400


def test_parquet_rows_are_named_too(tmp_path):
    file = tmp_path / "rows.parquet"
    rows = [
        {"prompt": "a", "when": None, "level": 1.0},
        {"prompt": "", "when": None, "level": 1.0},
        {"prompt": "a", "when": datetime.date(2020, 1, 1), "level": None},
        {"prompt": "a", "when": None, "level": float("nan")},
    ]
    pq.write_table(pa.Table.from_pylist(rows), file)
    with pytest.raises(UserError) as caught:
        load_examples(str(file), "train")
    assert f"{file} row 2: prompt is missing or empty" in str(caught.value)
    assert f"{file} row 3: when is date; it must be text, a number" in str(caught.value)
    assert f"{file} row 4: level is nan" in str(caught.value)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"rows.parquet cannot be read as Parquet"):
        load_examples(str(file), "train")


def test_every_bad_preference_is_named(tmp_path):
    rows = [{"prompt": "p", "chosen": "a", "rejected": "a"}, {"prompt": "p", "chosen": "a"}]
    with pytest.raises(UserError, match=r"(?s)row 1: chosen and rejected are equal.*row 2: rejected is missing"):
        load_pairs(write_jsonl(tmp_path / "pairs.jsonl", rows), "train")


def test_every_prompt_that_is_too_long_is_named(tmp_path, tiny_models):
    rows = [{"prompt": "b " * 60}, {"prompt": "b"}, {"prompt": "b " * 70}]
    examples = load_examples(write_jsonl(tmp_path / "rows.jsonl", rows), "train")
    with pytest.raises(UserError, match=r"(?s)row 1: the prompt has .*row 3: the prompt has") as caught:
        tokenize(examples, load_tokenizer(str(tiny_models["gpt2"])), DataConfig(train="x", max_prompt_tokens=50), 96)
    assert "row 2" not in str(caught.value)


# --- leaks


def test_held_out_prompts_that_are_trained_on(capsys):
    train = [parse_row({"prompt": text, "completion": "x"}, "train") for text in ("a", "b ", "c")]
    held_out = [parse_row({"prompt": text}, f"eval row {n}") for n, text in enumerate(("z", "b", "a"), start=1)]
    warn_of_leak(train, held_out)
    error = capsys.readouterr().err
    assert error.startswith(
        "warning: 2 of 3 held-out prompts are also in the training data, for example 'b' (eval row 2);"
    )
    assert error.count("\n") == 1
    warn_of_leak(train, held_out[:1])
    assert capsys.readouterr().err == ""


def test_stages_warn_of_leaks(tmp_path, tiny_models, pairs, capsys):
    config = {
        "output_dir": str(tmp_path / "sft"),
        "model": {"name_or_path": str(tiny_models["gpt2"])},
        "data": {"train": pairs, "eval": pairs},
        "num_train_epochs": 1,
        "batch_size": 8,
    }
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump(config))
    main(["sft", "--config", str(tmp_path / "sft.yaml")])
    assert capsys.readouterr().err.count("warning: 8 of 8 held-out prompts") == 1


@pytest.fixture
def fresh_accelerate(monkeypatch):
    """Without the precision that a Hugging Face Trainer of an earlier test has left in this process."""
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    AcceleratorState._reset_state()


def test_stages_warn_before_compute_is_spent(tmp_path, tiny_models, capsys, fresh_accelerate):
    """Each fails right after the data is read, for another reason."""
    prompts = write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": "a"}, {"prompt": "b"}])
    preferences = write_jsonl(tmp_path / "pref.jsonl", [{"prompt": "a", "chosen": "x", "rejected": "y"}])
    model = {"name_or_path": str(tiny_models["gpt2"])}
    rewards = [{"path": "react_heuristic"}]
    both = {"train": prompts, "eval": prompts}
    ppo = {"data": both, "rewards": rewards, "sampling": {"max_new_tokens": 96}}
    configs = {
        "ppo": (ppo | {"model": model}, "2 of 2", "more than the model's context"),
        "reward": (
            {"data": {"train": preferences, "eval": preferences}, "model": {"name_or_path": "./nowhere"}},
            "1 of 1",
            "does not exist",
        ),
        "pipeline": ({"sft": {"data": {"train": prompts}, "model": model}, "ppo": ppo}, "2 of 2", "no completion"),
    }
    for stage, (config, count, reason) in configs.items():
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config | {"output_dir": str(tmp_path / stage)}))
        with pytest.raises(SystemExit):
            main([stage, "--config", str(tmp_path / "config.yaml")])
        warning, error = capsys.readouterr().err.splitlines()
        assert warning.startswith(f"warning: {count} held-out prompts are also in the training data"), stage
        assert reason in error, stage


# --- unusual prompts

UNUSUAL = {
    "one space": " ",
    "right to left": "اكتب زرًا يقول «حفظ» \u202eabc\u202c",
    "emoji": "👩‍👩‍👧 🇩🇪 🎈",
    "NUL": "a\0b",
    "controls": "\x01\x1b[31m\r\u2028\ufdd0\ufffe",
    "only control tokens": "<|eos|><|pad|><|eos|>",
    "a control token inside": "Show <|eos|> a button",
    "a control token inside another": "<|e<|eos|>os|>",
}


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model_folder(request, tiny_models) -> str:
    return str(tiny_models[request.param])


@pytest.mark.parametrize("as_chat", [False, True])
@pytest.mark.parametrize("text", UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_text_is_text(model_folder, text, as_chat):
    tokenizer = load_tokenizer(model_folder)
    control = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    example = parse_row({"prompt": text, "completion": text}, "row")
    [row] = tokenize([example], tokenizer, DataConfig(as_chat=as_chat), 96)
    assert tokenizer.decode(row.prompt_ids) == (f"{text}\n" if as_chat else text)
    assert not control & set(row.prompt_ids)
    assert row.completion_ids is not None
    assert tokenizer.decode(row.completion_ids[:-1]) == text
    assert not control & set(row.completion_ids[:-1])
    assert row.completion_ids[-1] == tokenizer.eos_token_id


def test_the_template_still_writes_control_tokens(model_folder):
    tokenizer = load_tokenizer(model_folder)
    turns = [("user", "a"), ("assistant", "b <|eos|> c"), ("user", "d")]
    messages = [{"role": role, "content": content} for role, content in turns]
    [ids] = prompt_ids(tokenizer, [messages])
    assert tokenizer.decode(ids) == "a\nb <|eos|> c<|eos|>d\n"
    assert ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(ids[: ids.index(tokenizer.eos_token_id)]) == "a\nb <|eos|> c"


def test_a_role_cannot_say_a_control_token_either(tiny_models):
    tokenizer = load_tokenizer(str(tiny_models["gpt2"]))
    tokenizer.chat_template = "{{ messages[0]['role'] }}<|eos|>{{ messages[0]['content'] }}"
    [ids] = prompt_ids(tokenizer, [[{"role": "user<|eos|>", "content": "a"}]])
    assert tokenizer.decode(ids) == "user<|eos|><|eos|>a"
    assert ids.count(tokenizer.eos_token_id) == 1
    nonsense = "".join(map(chr, range(0xFDD0, 0xFDF0)))
    with pytest.raises(UserError, match="hold every noncharacter"):
        prompt_ids(tokenizer, [[{"role": "user", "content": f"{nonsense}<|eos|>"}]])


def test_ordinary_conversations_become_the_tokens_of_their_text(model_folder):
    tokenizer = load_tokenizer(model_folder)
    conversations = [[{"role": "user", "content": text}] for text in ("Show a button.", "x <|eos|>", "return null;")]
    first, _, last = prompt_ids(tokenizer, conversations)
    assert first == tokenizer("Show a button.\n", add_special_tokens=False)["input_ids"]
    assert last == tokenizer("return null;\n", add_special_tokens=False)["input_ids"]


def test_a_template_that_refuses_or_says_nothing(tiny_models):
    tokenizer = load_tokenizer(str(tiny_models["gpt2"]))
    examples = [parse_row({"prompt": [{"role": "user", "content": "a"}]}, "row 7")]
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(
        UserError, match=r"row 7: the chat template refuses the turns \(user\) that end with 'a': roles must"
    ):
        tokenize(examples, tokenizer, DataConfig(train="x"), 96)
    tokenizer.chat_template = "{# nothing #}"
    with pytest.raises(UserError, match="row 7: the prompt has no tokens"):
        tokenize(examples, tokenizer, DataConfig(train="x"), 96)


def test_responses_to_unusual_prompts(tiny_models, tmp_path):
    prompts = list(UNUSUAL.values())
    config = GenerateConfig(
        model=ModelConfig(name_or_path=str(tiny_models["gpt2"])),
        prompt=prompts,
        sampling=SamplingConfig(max_new_tokens=4),
        output=str(tmp_path / "out.jsonl"),
    )
    assert [row["prompt"] for row in run_generate(config)] == prompts
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert [row["prompt"] for row in written] == prompts


def test_a_prompt_of_control_tokens_is_trained_on_as_text(tiny_models):
    policy, tokenizer = policy_of(ModelConfig(name_or_path=str(tiny_models["gpt2"])))
    [row] = tokenize(
        [parse_row({"prompt": "<|eos|>", "completion": "a<|eos|>b"}, "row")], tokenizer, DataConfig(train="x"), 96
    )
    assert row.completion_ids is not None
    ids = torch.tensor([row.prompt_ids + row.completion_ids])
    mask = torch.ones(1, len(row.completion_ids), dtype=torch.bool)
    result = policy(ids, torch.tensor([len(row.prompt_ids)]), mask)
    assert result.logprobs.shape == (1, len(row.completion_ids))
    assert (result.logprobs < 0).all()


@pytest.mark.parametrize(
    ("settings_of_a_run", "as_chat"), [(Settings(as_chat=False), False), (Settings(), True), (None, True)]
)
def test_a_reward_model_reads_what_its_training_read(model_folder, settings_of_a_run, as_chat):
    tokenizer = load_tokenizer(model_folder)
    ids = _encoder(tokenizer, settings_of_a_run)("Show <|eos|>", "a<|eos|>b")
    example = parse_row({"prompt": "Show <|eos|>", "completion": "a<|eos|>b"}, "row")
    [row] = tokenize([example], tokenizer, DataConfig(as_chat=as_chat), 96)
    assert row.completion_ids is not None
    assert ids == row.prompt_ids + row.completion_ids


def test_a_pair_of_texts_has_no_control_tokens_of_its_own(model_folder):
    tokenizer = load_tokenizer(model_folder)
    tokenizer.chat_template = None
    assert tokenizer.eos_token_id not in _encoder(tokenizer, None)("Show <|eos|>", "a<|eos|>b")
