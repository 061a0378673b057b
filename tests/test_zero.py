"""SFT and reward models under DeepSpeed's ZeRO-2, where it is installed: bash scripts/test_deepspeed.sh installs it."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file
from tiny_data import write_jsonl

from rlhf.errors import UserError
from rlhf.parallel.zero import require_zero2
from rlhf.stages.resumable import Resumable
from rlhf.stages.zero import ZeroResumable

with_deepspeed = [
    pytest.mark.long,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed"),
]
WITHIN_S = 900  # on a CPU DeepSpeed compiles an extension when it is first used
KINDS = {  # the stage, and what else is set
    "sft": ("sft", []),
    "reward": ("reward", ["--lora.r", "4"]),
    "bfloat16": ("sft", ["--model.dtype", "bfloat16"]),
}


@pytest.fixture(scope="module")
def command(tiny_models, tmp_path_factory):
    """Arguments of six steps in two epochs on twelve rows of different lengths."""
    folder = tmp_path_factory.mktemp("zero")
    words = ["Save", "Send", "Open", "Close", "Start", "Stop", "More", "Less", "Up", "Down", "In", "Out"]
    rows = [
        {"prompt": f"Show {word}", "completion": f"{word} " * n, "chosen": f"{word} " * n, "rejected": "no " * n}
        for n, word in enumerate(words, start=1)
    ]
    columns = {"sft": ("prompt", "completion"), "reward": ("prompt", "chosen", "rejected")}

    def arguments(kind: str, output: Path) -> list[str]:
        stage, others = KINDS[kind]
        data = write_jsonl(folder / f"{stage}.jsonl", [{name: row[name] for name in columns[stage]} for row in rows])
        given = {
            "--model.name_or_path": str(tiny_models["gpt2"]), "--data.train": data, "--data.eval": data,
            "--num_train_epochs": "2", "--batch_size": "4", "--micro_batch_size": "1", "--learning_rate": "0.01",
            "--tracking": "{tensorboard: false, wandb: disabled}", "--output_dir": str(output),
        }  # fmt: skip
        return [stage, *(word for pair in given.items() for word in pair), *others]

    return arguments


def launch(config: str, what: str, step: int, *command: str) -> str:
    """What two processes print that end well; see zero_ranks.py."""
    env = {name: value for name, value in os.environ.items() if name != "ACCELERATE_USE_CPU"}
    env |= {"PYTHONPATH": os.pathsep.join(["tests", ".", *sys.path]), "OMP_NUM_THREADS": "1"}
    env |= {"DS_ACCELERATOR": "cpu"} if config.startswith("deepspeed") else {"ACCELERATE_USE_CPU": "true"}
    launcher = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        f"configs/accelerate/{config}.yaml",
    ]
    launcher += ["--num_processes", "2", "--main_process_port", "0", "tests/zero_ranks.py", what, str(step), *command]
    said = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(launcher, env=env, timeout=WITHIN_S, **said)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def run(command, tmp_path_factory):
    """The folder of a finished run of two processes, of which each kind is made once."""
    folders = {}

    def finished(kind: str, config: str = "deepspeed_zero2", what: str = "nothing", step: int = 0) -> Path:
        key = (kind, config, what, step)
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp(kind) / "run"
            launch(config, what, step, *command(kind, folders[key]))
        return folders[key]

    return finished


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]


def without_key_bias(name: str, parameter: torch.Tensor) -> torch.Tensor:
    """Attention does not depend on the bias of the keys: its gradient is rounding, which Adam makes a step of."""
    if not name.endswith("c_attn.bias"):
        return parameter
    query, _, value = parameter.chunk(3)
    return torch.cat([query, value])


def assert_same_weights(one: Path, other: Path, base: Path, within: float) -> None:
    models = [load_file(folder / "model" / "model.safetensors") for folder in (one, other)]
    before = load_file(base / "model.safetensors")
    assert models[0].keys() == models[1].keys()
    assert max((models[0][name] - before[name]).abs().max() for name in models[0].keys() & before.keys()) > 1e-3
    for name in models[0]:
        first, second = (without_key_bias(name, model[name]) for model in models)
        assert (first - second).abs().max() <= within, name


class TestWithDeepSpeed:
    pytestmark = with_deepspeed

    @pytest.mark.parametrize("kind", ["sft", "reward"])
    def test_it_trains_what_ddp_trains(self, run, tiny_models, kind):
        zero, ddp = run(kind), run(kind, "cpu_2")
        assert_same_weights(zero, ddp, tiny_models["gpt2"], 1e-6)
        stage = KINDS[kind][0]
        for name in ("loss", "grad_norm", "learning_rate"):
            losses, expected = ([row[f"{stage}/{name}"] for row in rows_of(folder)] for folder in (zero, ddp))
            assert len(losses) == 6
            assert losses == pytest.approx(expected, rel=1e-4), name

    @pytest.mark.parametrize("kind", ["reward", "bfloat16"])
    def test_stopped_and_continued_bit_for_bit(self, command, run, tmp_path, kind):
        """In bfloat16 the float32 copy of the parameters, of which each process has a part, has to come back too."""
        expected = run(kind)
        folder = tmp_path / "run"
        output = launch("deepspeed_zero2", "stop", 3, *command(kind, folder))
        assert "stopped after step 4 of 6, with a checkpoint" in output
        checkpoint = folder / "checkpoints" / "checkpoint-000004"
        names = {path.name for path in checkpoint.iterdir()}
        assert {"optimizer-part-0.safetensors", "optimizer-part-1.safetensors"} <= names
        assert {Path(name).suffix for name in names} == {".json", ".safetensors"}
        output = launch("deepspeed_zero2", "nothing", 0, *command(kind, folder))
        assert f"continuing after step 4, from {checkpoint}" in output
        assert rows_of(folder) == rows_of(expected)
        for file in sorted((expected / "model").glob("*.safetensors")):
            assert (folder / "model" / file.name).read_bytes() == file.read_bytes()

    def test_a_step_of_nan_is_left_out_on_all(self, run, tiny_models):
        zero, ddp = (run("sft", config, "nan", 3) for config in ("deepspeed_zero2", "cpu_2"))
        assert_same_weights(zero, ddp, tiny_models["gpt2"], 1e-6)
        for folder in (zero, ddp):
            assert [row["step"] for row in rows_of(folder) if row.get("sft/skipped_steps")] == [3]
        rates = [[row["sft/learning_rate"] for row in rows_of(folder)] for folder in (zero, ddp)]
        assert rates[0] == pytest.approx(rates[1])


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("DEEPSPEED_ZERO_STAGE", "3", r"zero_stage is 3: .* saved as empty tensors; use 2 \(configs/accelerate/deeps"),
        ("DEEPSPEED_ZERO_STAGE", "1", r"zero_stage is 1; it must be 2"),
        ("DEEPSPEED_CONFIG_FILE", "ds.json", r"deepspeed_config_file is ds.json; zero_stage: 2 and the run's own"),
        ("DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "cpu", r"offload_optimizer_device is cpu; it is not supported"),
        ("GRADIENT_CLIPPING", "0.5", r"gradient_clipping is 0.5; leave it out: max_grad_norm"),
        ("GRADIENT_ACCUMULATION_STEPS", "4", r"gradient_accumulation_steps is 4; leave it out: batch_size and"),
    ],
)
def test_what_else_of_deepspeed_is_asked_for_is_refused(monkeypatch, variable, value, message):
    monkeypatch.setenv(f"ACCELERATE_{variable}", value)
    with pytest.raises(UserError, match=message):
        require_zero2(on_cpu=False)


def test_cpus_are_not_asked_for():
    with pytest.raises(UserError, match=r"with ACCELERATE_USE_CPU accelerate leaves DeepSpeed out; unset it"):
        require_zero2(on_cpu=True)


def test_a_missing_deepspeed_is_named(hide_modules):
    hide_modules("deepspeed")
    with pytest.raises(UserError, match=r"needs deepspeed, which is not installed: pip install .rlhf-ppo\[d"):
        require_zero2(on_cpu=False)


@pytest.mark.parametrize(
    ("trainer", "saved", "message"),
    [
        (Resumable, {"parts": 2}, r"3 holds the optimizer in 2 parts of ZeRO-2, which this run was not launched with"),
        (ZeroResumable, {"parts": 2}, r"3 holds the optimizer in 2 parts of ZeRO-2, and this run has 1 processes"),
        (ZeroResumable, {"state": {}}, r"3 holds the optimizer in no parts of ZeRO-2, and this run has 1 processes"),
    ],
)
def test_a_checkpoint_of_another_launch_is_refused(trainer, saved, message):
    resumed = trainer()
    resumed.accelerator = PartialState()
    with pytest.raises(UserError, match=message):
        resumed._load_optimizer_state(saved, Path("checkpoint-000003"))
