"""docs/how-to/migrate-from-trl.md: its examples run. docs/reference/trl.md: it leaves no field out."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from documents import text_of
from tiny_data import write_jsonl

import rlhf.config as native
from rlhf import PPOConfig

TEXT = text_of("docs/how-to/migrate-from-trl.md")
TABLES = text_of("docs/reference/trl.md")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def section(title: str) -> str:
    return TABLES.split(f"# {title}\n", 1)[1].split("\n#", 1)[0]


def first_columns(title: str, column: int = 0) -> set[str]:
    """The names in backticks in a column of a section's table."""
    rows = [line.split("|")[1:] for line in section(title).splitlines() if line.startswith("|")]
    return {name for row in rows for name in re.findall(r"`(\w+)", row[column])}


@pytest.fixture
def workplace(tiny_models, tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    return str(tiny_models["gpt2"])


def test_the_loop_and_the_checkpoints_run(workplace, capsys):
    loop, _, checkpoints = blocks("python")
    exec(loop.replace('"gpt2"', repr(workplace)), {})
    assert len(re.findall(r"score \d+\.\d+  KL ", capsys.readouterr().out)) == 3
    exec(checkpoints, {})
    assert Path("for-trl/model.safetensors").is_file()


def test_the_yaml_trains(workplace, tmp_path):
    small = {"model": {"name_or_path": workplace}, "num_updates": 1, "batch_size": 4, "mini_batch_size": 4}
    small["rewards"] = [{"path": "length", "args": {"minimum": 5, "maximum": 9}}]
    [example] = blocks("yaml")
    Path("ppo.yaml").write_text(yaml.safe_dump(yaml.safe_load(example) | small))
    write_jsonl(tmp_path / "my_prompts.jsonl", [{"prompt": "Show a button."}])
    exec(blocks("python")[1], {})
    assert Path("runs/ppo/policy/adapter_model.safetensors").is_file()


def test_every_field_of_both_versions_is_mapped():
    old, new = "Fields of PPOConfig, TRL 0.11", "Fields of PPOConfig, TRL 1.12"
    from trl.experimental.ppo import PPOConfig as TRLConfig

    assert {f.name for f in fields(PPOConfig)} - {"temperature"} <= first_columns(old)
    assert set(TRLConfig.__annotations__) <= first_columns(new)
    ours = {f.name for f in fields(native.PPOConfig)}
    for title in (old, new):
        named = first_columns(title, 1)
        assert named - {"scale", "standardize"} <= ours


def test_every_statistic_is_in_the_table(workplace):
    import numpy as np
    from tiny_classic import PROMPTS, RESPONSES, make_trainer, prompt_ids

    stats = make_trainer(Path(workplace)).step(prompt_ids(workplace), RESPONSES, [0.0] * len(PROMPTS))
    listed = set(re.findall(r"`((?:objective|ppo|time|tokens)/[\w/*]+)`", section("Statistics")))
    families = {name.removesuffix("*") for name in listed if name.endswith("*")}
    assert not {name for name in stats if name not in listed and not name.startswith(tuple(families))}
    absent = {name for name in listed - stats.keys() if not name.endswith("*")}
    assert absent == set()
    arrays = {name for name, value in stats.items() if isinstance(value, np.ndarray)}
    assert arrays == set(re.findall(r"`(\w+/[\w/]+)`", section("Statistics").split("|")[0]))


def test_every_test_of_trl_is_listed_with_one_of_ours():
    """17 of the value head and 27 of the trainer; those marked * stand at the end again, with the reason."""
    text = Path("docs/dev/trl.md").read_text()
    head, trainer, exceptions = re.split(r"^## (?:Trainer|The exceptions)$", text, flags=re.MULTILINE)
    row = re.compile(r"^\| (`test_\w+`.*?) \|.*\| (.*) \|$", re.MULTILINE)
    assert [len(row.findall(part)) for part in (head, trainer)] == [17, 27]
    for theirs, ours in row.findall(head + trainer):
        if theirs.endswith(" *"):
            assert f"- {theirs.removesuffix(' *')}:" in exceptions
        if ours != "not asked":
            file, name = ours.split("::")
            assert f"def {name}(" in Path("tests", file).read_text(), theirs
    assert exceptions.count("\n- ") == text.count(" * |") == 4
