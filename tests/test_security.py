"""What somebody else's model, checkpoint, config or data set can make this program do: only what was asked for."""

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import datasets
import licenses
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from tiny_data import write_jsonl

from rlhf.cli import STAGES, main
from rlhf.config import ModelConfig
from rlhf.config.command_line import parse
from rlhf.config.files import masked_line
from rlhf.data.examples import load_examples
from rlhf.errors import UserError
from rlhf.models.load import load_causal_lm
from rlhf.models.tokenizer import load_tokenizer
from rlhf.rewards import RewardError, RewardSpec, load_reward
from rlhf.stages.evaluate import policy_of

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = """
import pathlib
pathlib.Path({mark!r}).write_text("this code was run")
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
class C(GPT2Config):
    model_type = "hostile"
class M(GPT2LMHeadModel):
    config_class = C
class T(PreTrainedTokenizerFast):
    pass
"""


class Touch:
    """A pickle of this creates a file when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {shlex.quote(str(self.mark))}",)


@pytest.fixture
def mark(tmp_path) -> Path:
    """Exists as soon as hostile code has run."""
    return tmp_path / "pwned"


def change_json(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.fixture
def custom_model(tiny_models, tmp_path, mark) -> str:
    """A model that needs code of its own."""
    folder = tmp_path / "custom_model"
    shutil.copytree(tiny_models["gpt2"], folder)
    (folder / "hostile.py").write_text(HOSTILE.format(mark=str(mark)))
    classes = {"AutoConfig": "hostile.C", "AutoModelForCausalLM": "hostile.M"}
    change_json(folder / "config.json", model_type="hostile", auto_map=classes)
    return str(folder)


# --- code that comes with a model

REFUSED = "comes with Python code, which would be run to load it; read that code, and set trust_remote_code: true"


def test_code_of_a_model_runs_only_with_consent(custom_model, mark):
    with pytest.raises(UserError, match=REFUSED):
        load_causal_lm(ModelConfig(name_or_path=custom_model))
    assert not mark.exists()
    load_causal_lm(ModelConfig(name_or_path=custom_model, trust_remote_code=True))
    assert mark.exists()  # else this model would prove nothing


@pytest.fixture
def fresh_accelerate(monkeypatch):
    """Without the precision that a Hugging Face Trainer of an earlier test has left in this process."""
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    AcceleratorState._reset_state()


def test_every_stage_refuses_in_one_line(custom_model, mark, pairs, tmp_path, capsys, fresh_accelerate):
    preferences = write_jsonl(tmp_path / "pref.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b"}])
    model = f"--model.name_or_path {custom_model}"
    commands = [
        f"ppo {model} --data.train {pairs} --rewards [{{path:\\ react_heuristic}}]",
        f"doctor {model} --data.train {pairs} --rewards [{{path:\\ react_heuristic}}]",
        f"sft {model} --data.train {pairs}",
        f"reward {model} --data.train {preferences} --data.eval {preferences}",
        f"evaluate {model} --data.train {pairs} --rewards [{{path:\\ react_heuristic}}]",
        f"generate {model} --prompt [hello]",
    ]
    for number, command in enumerate(commands):
        output = [] if command.startswith("generate") else ["--output_dir", str(tmp_path / f"run{number}")]
        with pytest.raises(SystemExit):
            main([*shlex.split(command), *output])
        said = capsys.readouterr()
        assert REFUSED in re.sub(r"[\s│┃]+", " ", said.err + said.out), command  # the doctor's table breaks lines
        assert not mark.exists(), command


def test_code_of_a_tokenizer_is_not_run(tiny_models, tmp_path, mark):
    folder = tmp_path / "custom_tokenizer"
    shutil.copytree(tiny_models["gpt2"], folder)
    (folder / "hostile.py").write_text(HOSTILE.format(mark=str(mark)))
    change_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["hostile.T", "hostile.T"]})
    change_json(folder / "tokenizer_config.json", tokenizer_class="T")
    load_tokenizer(str(folder))  # the library finds that its own class will do
    assert not mark.exists()
    load_tokenizer(str(folder), trust_remote_code=True)
    assert mark.exists()


def test_a_policy_and_an_adapter_cannot_bring_a_base_with_code(custom_model, mark, tmp_path):
    policy, adapter = tmp_path / "policy", tmp_path / "adapter"
    policy.mkdir()
    adapter.mkdir()
    (policy / "policy.json").write_text(json.dumps({"base": custom_model, "critic": "shared", "lora": {"r": 2}}))
    settings = {"peft_type": "LORA", "r": 2, "target_modules": ["c_attn"], "base_model_name_or_path": custom_model}
    settings["auto_mapping"] = {"base_model_class": "M", "parent_library": "hostile"}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    for load, folder in ((policy_of, policy), (load_causal_lm, adapter)):
        with pytest.raises(UserError, match=REFUSED):
            load(ModelConfig(name_or_path=str(folder)))
    assert not mark.exists()


def test_a_reward_model_cannot_bring_code(custom_model, mark):
    with pytest.raises(RewardError, match=REFUSED):
        load_reward(RewardSpec(path="reward_model", args={"path": custom_model}))
    assert not mark.exists()


# --- pickles


@pytest.fixture
def pickled_model(tiny_models, tmp_path, mark) -> Path:
    folder = tmp_path / "pickled model"
    shutil.copytree(tiny_models["gpt2"], folder)
    (folder / "model.safetensors").unlink()
    torch.save({"x": Touch(mark)}, folder / "pytorch_model.bin")
    return folder


def test_pickles_are_refused_unread(pickled_model, mark, tiny_models, tmp_path):
    adapter = tmp_path / "whole model with a pickled adapter"
    shutil.copytree(tiny_models["gpt2"], adapter)
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x"}))
    shutil.copy(pickled_model / "pytorch_model.bin", adapter / "adapter_model.bin")
    for folder in (pickled_model, adapter):
        with pytest.raises(UserError, match=r"\.bin is a pickle, which may run code when it is read"):
            load_causal_lm(ModelConfig(name_or_path=str(folder)))
    with pytest.raises(RewardError, match="is a pickle"):
        load_reward(RewardSpec(path="reward_model", args={"path": str(pickled_model)}))
    assert not mark.exists()
    torch.load(pickled_model / "pytorch_model.bin", weights_only=False)
    assert mark.exists()  # else this pickle would prove nothing


def test_the_way_to_convert_a_pickle_works(pickled_model, tiny_models):
    weights = load_file(tiny_models["gpt2"] / "model.safetensors")
    torch.save(weights, pickled_model / "pytorch_model.bin")
    with pytest.raises(UserError) as caught:
        load_causal_lm(ModelConfig(name_or_path=str(pickled_model)))
    _, command = str(caught.value).split("convert it to safetensors: python ")
    subprocess.run([sys.executable, *shlex.split(command)], check=True, capture_output=True)
    model = load_causal_lm(ModelConfig(name_or_path=str(pickled_model)))
    assert torch.equal(model.transformer.wte.weight, weights["transformer.wte.weight"])


# --- configs and runs of somebody else's


@pytest.fixture
def foreign_run(tiny_models, pairs, tmp_path, mark, monkeypatch) -> Path:
    """A run whose config names a reward that comes with it, in a folder that Python would import from."""
    run = tmp_path / "foreign"
    run.mkdir()
    (run / "hostile_reward.py").write_text(
        f"import pathlib\npathlib.Path({str(mark)!r}).write_text('')\n"
        "def reward(prompts, completions, **columns): return [0.0] * len(prompts)\n"
    )
    (run / "versions.json").write_text("{}")
    config = {
        "model": {"name_or_path": str(tiny_models["gpt2"])},
        "data": {"train": pairs},
        "rewards": [{"path": "hostile_reward.reward"}],
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "metrics.jsonl").write_text('{"step": 1, "objective/score": 0.5, "objective/kl": 0.1}\n')
    monkeypatch.chdir(run)
    yield run
    sys.modules.pop("hostile_reward", None)


def test_rewards_of_a_foreign_run_need_consent(foreign_run, mark, tmp_path, capsys):
    for stage in ("ppo", "evaluate", "doctor"):
        with pytest.raises(SystemExit):
            main([stage, "--config", "config.yaml", "--output_dir", str(tmp_path / "out")])
        error = capsys.readouterr().err
        assert "lies in the folder of a run and asks for the reward 'hostile_reward.reward'" in error
        assert error.count("\n") == 1
    assert not mark.exists()
    shutil.copy("config.yaml", tmp_path / "mine.yaml")  # consent
    config = parse(STAGES["ppo"].config_class, ["--config", str(tmp_path / "mine.yaml")])
    load_reward(config.rewards[0])
    assert mark.exists()


def test_trust_in_a_foreign_run_is_not_contagious(foreign_run):
    config = yaml.safe_load(Path("config.yaml").read_text()) | {"rewards": [{"path": "length"}]}
    Path("config.yaml").write_text(yaml.safe_dump(config))
    parse(STAGES["ppo"].config_class, ["--config", "config.yaml"])
    config["model"]["trust_remote_code"] = True
    Path("config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=r"asks for model\.trust_remote_code"):
        parse(STAGES["ppo"].config_class, ["--config", "config.yaml"])
    del config["model"]["trust_remote_code"]
    config["rewards"] = [{"path": "reward_model", "args": {"path": "x", "trust_remote_code": True}}]
    Path("config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match="asks for the reward 'reward_model'"):
        parse(STAGES["ppo"].config_class, ["--config", "config.yaml"])
    for name in ("server", "judge"):
        config["rewards"] = [{"path": name, "args": {"url": "http://elsewhere", "key_env": "SOME_OTHER_KEY"}}]
        Path("config.yaml").write_text(yaml.safe_dump(config))
        with pytest.raises(UserError, match=f"asks for the reward '{name}', which would send what is trained on"):
            parse(STAGES["ppo"].config_class, ["--config", "config.yaml"])


@pytest.mark.parametrize("value", ["brought.Lora", "{class_path: brought.Lora}", "{class_path: brought.Lora, r: 4}"])
@pytest.mark.parametrize("stage", ["ppo", "sft"])
def test_a_config_file_cannot_name_a_class_of_its_own(stage, value, mark, tmp_path, monkeypatch):
    """Where a section may be null the parser would import what stands there, to see whether it is a subclass."""
    (tmp_path / "brought.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).write_text('')\n")
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "config.yaml"
    rewards = "rewards: [{path: react_heuristic}]\n" if stage == "ppo" else ""
    file.write_text(f"model: {{name_or_path: x}}\ndata: {{train: y}}\n{rewards}lora: {value}\n")
    with pytest.raises(UserError, match=r"lora is 'brought.Lora'; it must be a mapping|unknown key 'lora.class_path'"):
        parse(STAGES[stage].config_class, ["--config", str(file)])
    assert not mark.exists()


def test_a_report_of_a_foreign_run_imports_nothing(foreign_run, mark, tmp_path):
    main(["report", str(foreign_run), "--output", str(tmp_path / "report.html")])
    assert (tmp_path / "report.html").is_file()
    assert not mark.exists()


# --- data


def test_a_data_folder_reads_its_own_files_only(tmp_path, mark):
    secret = write_jsonl(tmp_path / "train.jsonl", [{"prompt": "private"}])
    folder = tmp_path / "data"
    folder.mkdir()
    write_jsonl(folder / "train.jsonl", [{"prompt": "public"}])
    declared = {"configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "../train.jsonl"}]}]}
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(declared)}---\n")
    (folder / "data.py").write_text(f"open({str(mark)!r}, 'w')")
    assert [e.prompt for e in load_examples(str(folder), "train")] == ["public"]
    assert not mark.exists()
    (folder / "train-2.jsonl").symlink_to(secret)
    with pytest.raises(UserError, match=r"train-2\.jsonl is a link that leads out of"):
        load_examples(str(folder), "train")
    with pytest.raises(UserError, match=r"holds no \.jsonl, \.json, \.csv or \.parquet file of the split 'test'"):
        load_examples(str(folder), "test")


def test_an_image_column_opens_no_path(tmp_path):
    from PIL import Image

    Image.new("RGB", (2, 2)).save(tmp_path / "private.png")
    row = {"prompt": "a", "picture": {"bytes": None, "path": str(tmp_path / "private.png")}}
    features = datasets.Features({"prompt": datasets.Value("string"), "picture": datasets.Image()})
    made = datasets.Dataset.from_list([row], features=features)
    assert made[0]["picture"].size == (2, 2)  # what the library makes of it
    pq.write_table(made.data.table, tmp_path / "rows.parquet")
    [example] = load_examples(str(tmp_path / "rows.parquet"), "train")
    assert example.columns["picture"] == row["picture"]


def test_a_path_in_a_row_is_text(tmp_path):
    rows = [{"prompt": "/etc/passwd", "completion": "../../x", "file": "file:///etc/passwd"}]
    [example] = load_examples(write_jsonl(tmp_path / "rows.jsonl", rows), "train")
    assert (example.prompt, example.completion, example.columns["file"]) == (
        "/etc/passwd",
        "../../x",
        "file:///etc/passwd",
    )


# --- secrets

IN_CONFIG, IN_ENVIRONMENT, WANDB_KEY = (
    "c0nfig-planted-5ecret",
    "env1ronment-planted-5ecret",
    "0123456789abcdef" * 2 + "5ecre7ab",
)
REWARD = """
class Paid:
    def __init__(self, api_key, region):
        assert api_key == {secret!r}
    def __call__(self, prompts, completions, **columns):
        return [float(len(text)) for text in completions]
"""


def everything_in(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def run_with_secrets(tiny_models, tmp_path_factory):
    """A run with W&B offline and TensorBoard, its secrets in config, command line and environment; what it printed."""
    home = tmp_path_factory.mktemp("home")
    code = tmp_path_factory.mktemp("code")
    (code / "paid.py").write_text(REWARD.format(secret=IN_CONFIG))
    prompts = write_jsonl(code / "prompts.jsonl", [{"prompt": f"p{n}"} for n in range(4)])
    rewards = [{"path": "paid.Paid", "args": {"api_key": IN_CONFIG, "region": "visible-in-config"}}]
    config = {
        "output_dir": str(home / "run"),
        "model": {"name_or_path": str(tiny_models["gpt2"])},
        "data": {"train": prompts, "system_prompt": f"Authenticate as {IN_ENVIRONMENT}."},
        "rewards": rewards,
        "sampling": {"max_new_tokens": 4},
        "num_updates": 2,
        "batch_size": 4,
        "mini_batch_size": 4,
        "checkpoint": {"save_steps": 1},
        "tracking": {"wandb": "offline", "wandb_project": "visible-project"},
    }
    (code / "ppo.yaml").write_text(yaml.safe_dump(config))
    secrets = {"MY_SERVICE_PASSWORD": IN_ENVIRONMENT, "WANDB_API_KEY": WANDB_KEY, "HF_TOKEN": IN_ENVIRONMENT + "-hf"}
    places = {"HOME": str(home), "TMPDIR": str(home), "XDG_CACHE_HOME": str(home / "cache"), "WANDB_MODE": "offline"}
    result = subprocess.run(
        [sys.executable, "-m", "rlhf", "ppo", "--config", "ppo.yaml", "--rewards", json.dumps(rewards)],
        capture_output=True,
        text=True,
        cwd=code,
        env=os.environ | secrets | places | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    main(["report", str(home / "run")])
    return home, result.stdout + result.stderr


def test_secrets_are_in_nothing_that_was_written_or_said(run_with_secrets):
    home, said = run_with_secrets
    files = everything_in(home)
    for secret in (IN_CONFIG, IN_ENVIRONMENT, WANDB_KEY):
        assert secret not in said
        assert [file for file, content in files.items() if secret.encode() in content] == []


def test_the_search_for_secrets_would_find_them(run_with_secrets):
    """What stands beside the secrets is found in every kind of file that holds the config."""
    home, _ = run_with_secrets
    files = everything_in(home)
    found = {file.suffix for file, content in files.items() if b"visible-in-config" in content}
    assert {".yaml", ".wandb"} <= found
    assert any("tfevents" in file.name for file, content in files.items() if b"visible-in-config" in content)


def test_nobody_else_may_write_what_a_run_wrote(run_with_secrets):
    home, _ = run_with_secrets
    for path in (home / "run").rglob("*"):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if not path.is_symlink():
            assert not mode & (stat.S_IWGRP | stat.S_IWOTH), path
            assert path.is_dir() or not mode & stat.S_IXUSR, path


@pytest.mark.parametrize(
    "message",
    [
        f"Got value: [{{'path': 'x', 'args': {{'api_key': '{IN_CONFIG}', 'n': 1}}}}]",
        f'unexpected "hf_token": "{IN_CONFIG}"',
        f"password: {IN_CONFIG}",
    ],
)
def test_what_is_said_of_a_wrong_config_hides_secrets(message):
    assert IN_CONFIG not in masked_line(ValueError(message))
    assert "***" in masked_line(ValueError(message))


def test_tokens_of_text_are_no_secret():
    message = "Parser key \"data.max_prompt_tokens\": Expected a <class 'int'>. Got value: many"
    assert masked_line(ValueError(message)) == message


def test_a_wrong_config_with_a_secret(tmp_path):
    file = tmp_path / "config.yaml"
    reward = {"path": "length", "args": {"api_key": IN_CONFIG}, "weight": "heavy"}
    file.write_text(yaml.safe_dump({"data": {"train": "x"}, "rewards": [reward]}))
    with pytest.raises(UserError, match="heavy") as caught:
        parse(STAGES["ppo"].config_class, ["--config", str(file)])
    assert IN_CONFIG not in str(caught.value)


# --- dependencies


def test_every_pinned_dependency_has_a_permissive_license():
    result = subprocess.run(
        [sys.executable, ROOT / "scripts" / "licenses.py"], capture_output=True, text=True, check=False
    )
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if "==" in line and not line.startswith("#")]
    assert f"{len(pins)} packages pinned" in result.stdout
    assert (result.returncode, "needs a look" in result.stdout) == (0, False), result.stdout


@pytest.mark.parametrize(
    ("stated", "look"),
    [("GPL-3.0-only", True), ("MIT", False), ("AGPL-3.0 OR MIT", True), ("not stated", True), ("Apache 2.0", False)],
)
def test_what_counts_as_permissive(stated, look):
    assert licenses.needs_a_look(stated) is look
