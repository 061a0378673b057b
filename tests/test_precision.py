"""`model.dtype: auto`: bfloat16 where the machine multiplies it, and a word where it does not."""

import importlib
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from tiny_runs import Crash, make_config

from rlhf.cli import STAGES
from rlhf.config import CheckpointConfig, ModelConfig, PipelineConfig
from rlhf.config.command_line import parse
from rlhf.models import precision
from rlhf.models.load import load_causal_lm
from rlhf.runs.files import read_jsonl
from rlhf.runs.folder import open_run
from rlhf.stages.pipeline import with_dtypes
from rlhf.stages.ppo import run_ppo

CPUINFO = Path("/proc/cpuinfo")


@pytest.fixture(autouse=True)
def unsaid():
    precision.say_slow.cache_clear()


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_bf16": False}, False),
        ({"avx2": True, "avx512_f": True}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_tile": True, "amx_bf16": True}, True),
        ({"neon": True, "bf16": True}, True),
        ({"neon": True, "bf16": False}, False),
    ],
)
def test_processors(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert precision.has_bfloat16() == expected


@pytest.mark.parametrize(("use_cpu", "expected"), [("", True), ("true", False)])
def test_a_gpu_counts_unless_it_is_left_unused(monkeypatch, use_cpu, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    monkeypatch.setenv("ACCELERATE_USE_CPU", use_cpu)
    assert precision.has_bfloat16() == expected


@pytest.mark.skipif(torch.cuda.is_available() or not CPUINFO.exists(), reason="asks the processor of a Linux machine")
def test_this_processor():
    flags = set(CPUINFO.read_text().split())
    assert precision.has_bfloat16() == bool(flags & {"avx512_bf16", "amx_bf16", "bf16", "svebf16"})


def settles_on(fast: bool, monkeypatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda: fast)


@pytest.mark.parametrize(("fast", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_a_run_says_what_auto_was(tiny_models, pairs, tmp_path, monkeypatch, capsys, fast, expected):
    settles_on(fast, monkeypatch)
    model = ModelConfig(name_or_path=str(tiny_models["gpt2"]), dtype="auto")
    config = replace(make_config("x", pairs), model=model, output_dir=str(tmp_path / "run"), num_updates=1)
    policy = run_ppo(config)
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert written["model"]["dtype"] == expected
    assert f'dtype="{expected}"' in (policy / "README.md").read_text()
    assert "no instructions" not in capsys.readouterr().err
    run_ppo(config)
    assert "nothing was done" in capsys.readouterr().out


@pytest.mark.parametrize("fast", [True, False])
def test_a_run_goes_on_elsewhere_as_it_was_begun(tiny_models, pairs, tmp_path, monkeypatch, fast):
    """The folder has come to a machine that would have chosen otherwise."""
    settles_on(fast, monkeypatch)
    model = ModelConfig(name_or_path=str(tiny_models["gpt2"]), dtype="auto")
    config = replace(make_config("x", pairs), model=model, output_dir=str(tmp_path / "run"), num_updates=2,
                     checkpoint=CheckpointConfig(save_steps=1))  # fmt: skip
    with pytest.raises(RuntimeError, match="power failure"):
        run_ppo(config, callbacks=[Crash(at=2)])
    settles_on(not fast, monkeypatch)
    run_ppo(config)
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert written["model"]["dtype"] == ("bfloat16" if fast else "float32")
    assert [row["step"] for row in read_jsonl(tmp_path / "run" / "metrics.jsonl")] == [1, 2]


def test_a_pipeline_settles_both_of_its_models_once(tmp_path, monkeypatch):
    settles_on(True, monkeypatch)
    file = tmp_path / "pipeline.yaml"
    sft = "sft: {model: {name_or_path: x, dtype: auto}, data: x.jsonl}"
    ppo = "ppo: {model: {dtype: auto}, data: {train: x.jsonl, eval: y.jsonl}, rewards: length}"
    file.write_text(f"{sft}\n{ppo}\n")
    config = parse(PipelineConfig, [str(file), "--output_dir", str(tmp_path / "run")])
    first = with_dtypes(config)
    assert (first.sft.model.dtype, first.ppo.model.dtype) == ("bfloat16", "bfloat16")
    open_run(first.output_dir, first)
    settles_on(False, monkeypatch)
    assert with_dtypes(config) != first  # nothing has come of it yet, and it may be corrected
    (tmp_path / "run" / "sft" / "model").mkdir(parents=True)
    (tmp_path / "run" / "sft" / "model" / "config.json").touch()
    assert with_dtypes(config) == first
    assert open_run(first.output_dir, with_dtypes(config)) == tmp_path / "run"


@pytest.mark.parametrize(("fast", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_loading_by_hand_settles_too(tiny_models, monkeypatch, fast, expected):
    settles_on(fast, monkeypatch)
    assert load_causal_lm(ModelConfig(name_or_path=str(tiny_models["gpt2"]), dtype="auto")).dtype == expected


@pytest.mark.parametrize("text", ["", "model: 3", "model: {dtype: auto}", "{"])
def test_a_folder_that_says_nothing_of_it_does_not_decide(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    assert precision.begun_with(str(tmp_path), "model") is None


def test_a_slow_bfloat16_is_said_once(monkeypatch, capsys):
    settles_on(False, monkeypatch)
    config = SimpleNamespace(model=ModelConfig(name_or_path="x", dtype="bfloat16"))
    assert precision.settled(precision.settled(config)) is config
    assert capsys.readouterr().err.count("model.dtype is bfloat16, but this processor") == 1
    settles_on(True, monkeypatch)
    precision.say_slow.cache_clear()
    precision.settled(config)
    precision.settled(SimpleNamespace(model=None))
    assert capsys.readouterr().err == ""


WITH_MODEL = [name for name, stage in STAGES.items() if any(f.name == "model" for f in fields(stage.config_class))]


@pytest.mark.parametrize("name", sorted({*WITH_MODEL} - {"fetch"}))
def test_every_stage_with_a_model_chooses(tmp_path, monkeypatch, name):
    class ChosenError(Exception):
        pass

    def choose(config):
        raise ChosenError

    monkeypatch.setattr(precision, "settled", choose)
    module, function = STAGES[name].run.split(":")
    with pytest.raises(ChosenError):
        getattr(importlib.import_module(module), function)(SimpleNamespace(output_dir=str(tmp_path)))
