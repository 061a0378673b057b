"""What is set, or lies in a file, and used to count as something else without a word."""

import json
import subprocess
from pathlib import Path

import pytest
import torch

from rlhf.config import EvaluateConfig, EvaluationSettings, GenerateConfig, PipelineConfig, PPOConfig
from rlhf.config.command_line import parse, read
from rlhf.config.files import strict_load
from rlhf.config.secrets import MASK, mask_secrets
from rlhf.data.examples import TokenizedExample
from rlhf.data.parsing import Example
from rlhf.data.prompts import ShuffledPasses
from rlhf.errors import UserError
from rlhf.runs.folder import difference, essence, open_run
from rlhf.stages.pipeline import fenced

ROOT = Path(__file__).resolve().parent.parent
PPO = {"model": {"name_or_path": "m"}, "data": {"train": "t.jsonl", "eval": "e.jsonl"}, "rewards": [{"path": "length"}]}


def pipeline(tmp_path, **ppo):
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({"sft": None, "ppo": {**PPO, **ppo}, "seed": 1}), encoding="utf-8")
    return parse(PipelineConfig, ["--config", str(file)], "rlhf pipeline")


# --- pipelines


def test_a_pipeline_measures_on_held_out_prompts(tmp_path):
    assert pipeline(tmp_path).evaluation == EvaluationSettings()
    with pytest.raises(
        UserError, match=r"^ppo\.data\.eval is not set; a pipeline measures before and after on held-out"
    ):
        pipeline(tmp_path, data={"train": "t.jsonl"})


def test_a_pipeline_has_one_seed(tmp_path):
    assert pipeline(tmp_path, seed=1).ppo.seed == 1
    with pytest.raises(UserError, match=r"^ppo\.seed is 3, but a pipeline has one seed, which is 1; set seed"):
        pipeline(tmp_path, seed=3)


# --- resuming


def prompts(*texts, **columns):
    return [TokenizedExample(Example(t, None, columns, "row"), [ord(c) for c in t], None) for t in texts]


def test_a_pass_does_not_go_on_over_other_data():
    passes = ShuffledPasses(prompts("ab", "cd", reference="x"), torch.Generator())
    next(passes)
    state = passes.state_dict()
    ShuffledPasses(prompts("ab", "cd", reference="x"), torch.Generator()).load_state_dict(state)
    for other in (prompts("ab", "ce", reference="x"), prompts("ab", "cd", reference="y")):
        with pytest.raises(UserError, match="the checkpoint was made with other data than these 2 prompts"):
            ShuffledPasses(other, torch.Generator()).load_state_dict(state)
    del state["sha256"]  # of an earlier release
    ShuffledPasses(prompts("ab", "ce"), torch.Generator()).load_state_dict(state)


def test_arguments_of_an_environment_are_part_of_the_run_whatever_they_are_called():
    before, now = ({"environment": {"args": {"checkpoint": name}}, "checkpoint": {"save_steps": 1}} for name in "ab")
    assert difference(essence(before), essence(now)) == "environment.args.checkpoint was 'a' and is 'b'"


@pytest.mark.parametrize(
    ("key", "value", "is_secret"),
    [("per_token", 0.1, False), ("cost_per_token", 0.1, False), ("eos_token", "</s>", False), ("token", 5, False),
     ("hub_token", "abc", True), ("token", "abc", True), ("password", 1234, True)],
)  # fmt: skip
def test_numbers_of_tokens_are_no_secrets(key, value, is_secret):
    assert mask_secrets({"args": {key: value}}) == {"args": {key: MASK if is_secret else value}}


# --- YAML and the command line


def test_an_alias_is_a_copy(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(
        "sft: {data: {columns: &c {prompt: q, completion: a}}}\nppo: {data: {columns: *c}}\n", encoding="utf-8"
    )
    values, _ = read(PipelineConfig, ["--config", str(file), "--ppo.data.columns.prompt", "question"])
    assert values["sft"]["data"]["columns"] == {"prompt": "q", "completion": "a"}
    assert values["ppo"]["data"]["columns"] == {"prompt": "question", "completion": "a"}


@pytest.mark.parametrize(
    ("given", "texts"),
    [("[END]", ["[END]"]), ("[/INST]", ["[/INST]"]), ("- x", ["- x"]), ("['END']", ["END"]), ("[a, b]", ["a", "b"])],
)
def test_a_text_in_brackets_is_a_text(given, texts):
    command = ["--model.name_or_path", "m", "--prompt", given, "--sampling.stop", given]
    config = parse(GenerateConfig, command, "rlhf generate")
    assert (config.prompt, config.sampling.stop) == (texts, texts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 010", "seed is 010, a number in YAML's old notation"),
        ("a: {timeout: 1:30}", "a.timeout is 1:30, a number in YAML's old notation"),
        ("lora:\n  # r: 4\nseed: 1", "nothing stands behind lora; write null, or leave it out"),
        ("a: !!set {b: null}", "a is a set"),
        ("a: !!binary aGk=", "a is a binary"),
        ("a: .nan", "a is .nan; it must be a number"),
    ],
)
def test_yaml_that_says_something_else_than_it_seems(text, message):
    with pytest.raises(Exception, match=message):
        strict_load(text)


def test_yaml_that_says_what_it_seems():
    text = "{a: 10, b: 0, c: -0.5, d: '010', e: null, f: 1e-5, g: .inf, h: '', i: 0x10, j: 'a: b'}"
    expected = {"a": 10, "b": 0, "c": -0.5, "d": "010", "e": None, "f": 1e-5, "g": float("inf"), "h": "", "i": 16}
    assert strict_load(text) == expected | {"j": "a: b"}


def test_a_cap_without_weights():
    given = ["--model", "m", "--data", "t.jsonl", "--rewards", "length", "--importance_cap", "3.0"]
    with pytest.raises(UserError, match=r"^importance_cap is 3\.0, but importance_correction is none"):
        parse(PPOConfig, given, "rlhf ppo")
    assert parse(PPOConfig, [*given, "--importance_correction", "token"], "rlhf ppo").importance_cap == 3


# --- scripts


@pytest.mark.parametrize(
    ("words", "own"), [("--seed 1", False), ("--config a.yaml", True), ("-c a.yaml", True), ("a.yml --seed 1", True)]
)
def test_the_quickstart_takes_a_config_in_every_way(words, own):
    script = (ROOT / "scripts" / "quickstart.sh").read_text(encoding="utf-8")
    [condition] = [line for line in script.splitlines() if line.startswith("if [[")]
    code = f"set -- {words}; {condition} echo default; else echo own; fi"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ("own" if own else "default")


# --- pipelines that were moved, and what their summary shows


def test_a_run_and_the_model_beside_it_may_be_moved(tmp_path):
    config = {"rewards": [{"path": "length"}], "data": {"eval": "e.jsonl"}}

    def opened(folder, name):
        model = folder / name
        model.mkdir(parents=True, exist_ok=True)
        given = {**config, "model": {"name_or_path": str(model)}, "output_dir": str(folder / "evaluation")}
        (tmp_path / "config.yaml").write_text(json.dumps(given), encoding="utf-8")
        return open_run(given["output_dir"], parse(EvaluateConfig, [str(tmp_path / "config.yaml")], "rlhf evaluate"))

    run = opened(tmp_path / "old", "policy")
    (run / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n', encoding="utf-8")
    (tmp_path / "old").rename(tmp_path / "new")
    assert opened(tmp_path / "new", "policy") == tmp_path / "new" / "evaluation"
    with pytest.raises(UserError, match="already holds a different run"):
        opened(tmp_path / "new", "other")


def test_a_response_with_a_fence_stays_in_its_block():
    assert fenced("a\n```\nb", "") == "````\na\n```\nb\n````"
    assert fenced("a", "tsx") == "```tsx\na\n```"
