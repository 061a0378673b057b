"""Interrupted runs go on as if nothing had happened."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny_data import write_pairs
from tiny_runs import COUNT_E, AskToStop, Crash, command_line, make_config

from rlhf.config import CheckpointConfig, InspectConfig, ValueWarmup
from rlhf.errors import Interrupted, UserError
from rlhf.runs.files import read_jsonl
from rlhf.stages.ppo import run_ppo

OPTIONS = {
    "num_updates": 5,
    "adaptive_kl_target": 0.5,
    "adaptive_kl_horizon": 40,
    "score_normalization": "standardize",
    "value_warmup": ValueWarmup(explained_variance=5.0, max_updates=2),
    "checkpoint": CheckpointConfig(save_steps=1),
    "inspect": InspectConfig(prompts=1, every=2),
}


def outcome(folder: Path) -> dict:
    """All that a run has written, but for times and random ids."""
    metrics = read_jsonl(folder / "metrics.jsonl")
    return {
        "metrics": [{k: v for k, v in row.items() if not k.startswith("time/")} for row in metrics],
        "samples": read_jsonl(folder / "samples.jsonl"),
        "warnings": read_jsonl(folder / "warnings.jsonl"),
        "policy": {
            str(file.relative_to(folder)): {name: x.tolist() for name, x in load_file(file).items()}
            for file in sorted((folder / "policy").rglob("*.safetensors"))
        },
        "rollouts": {
            str(file.relative_to(folder)): file.read_bytes() for file in sorted((folder / "rollouts").rglob("*.*"))
        },
    }


@pytest.fixture(scope="module")
def config(tiny_models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    data = write_pairs(folder)
    return make_config(tiny_models["gpt2"], data, output_dir=str(folder / "whole"), **OPTIONS)


@pytest.fixture(scope="module")
def whole(config) -> dict:
    """The run that nobody interrupted."""
    return outcome(run_ppo(config).parent)


def test_the_whole_run_is_all_there(whole):
    assert [row["step"] for row in whole["metrics"]] == [1, 2, 3, 4, 5]
    assert [row["policy/warmup"] for row in whole["metrics"]] == [1, 1, 0, 0, 0]
    assert [row["objective/kl_coef"] == 0.05 for row in whole["metrics"]] == [True, True, True, False, False]
    assert [name.split("/")[1] for name in whole["rollouts"] if name.endswith("jsonl")] == [
        "000001", "000002", "000004", "000005",
    ]  # fmt: skip


@pytest.mark.parametrize("at", [1, 2, 4])
def test_crash_in_the_middle_of_an_update(config, whole, tmp_path, at):
    broken = dataclasses.replace(config, output_dir=str(tmp_path / "run"))
    with pytest.raises(RuntimeError, match="power failure"):
        run_ppo(broken, callbacks=[Crash(at)])
    assert outcome(run_ppo(broken).parent) == whole
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_checkpoints_further_apart_repeat_what_lies_between(config, whole, tmp_path):
    sparse = dataclasses.replace(config, output_dir=str(tmp_path / "run"), checkpoint=CheckpointConfig(save_steps=2))
    with pytest.raises(RuntimeError, match="power failure"):
        run_ppo(sparse, callbacks=[Crash(4)])
    assert [row["step"] for row in read_jsonl(tmp_path / "run" / "metrics.jsonl")] == [1, 2, 3]
    assert outcome(run_ppo(sparse).parent) == whole


def test_sigterm_saves_first(config, whole, tmp_path):
    stopped = dataclasses.replace(config, output_dir=str(tmp_path / "run"), checkpoint=CheckpointConfig(save_steps=100))
    with pytest.raises(Interrupted, match="saved after update 3 of 5; the same command continues"):
        run_ppo(stopped, callbacks=[AskToStop(3)])
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["checkpoint-000003"]
    assert outcome(run_ppo(stopped).parent) == whole


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(config, whole, tmp_path, capsys):
    broken = dataclasses.replace(config, output_dir=str(tmp_path / "run"))
    with pytest.raises(RuntimeError):
        run_ppo(broken, callbacks=[Crash(4)])
    file = tmp_path / "run" / "checkpoints" / "checkpoint-000003" / "policy" / "adapter_model.safetensors"
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    assert outcome(run_ppo(broken).parent) == whole
    assert "checkpoint-000003 is damaged (policy/adapter_model.safetensors" in capsys.readouterr().err


def test_a_checkpoint_is_a_policy_for_the_other_stages(config, tmp_path):
    from rlhf.policy.files import load_policy

    broken = dataclasses.replace(config, output_dir=str(tmp_path / "run"))
    with pytest.raises(RuntimeError):
        run_ppo(broken, callbacks=[Crash(4)])
    assert load_policy(tmp_path / "run" / "checkpoints" / "checkpoint-000003" / "policy").lora.r == 4


def test_other_data_than_the_checkpoint_was_made_with(config, tmp_path):
    data = tmp_path / "pairs.jsonl"
    lines = Path(config.data.train).read_text().splitlines(keepends=True)
    data.write_text("".join(lines))
    broken = dataclasses.replace(
        config, output_dir=str(tmp_path / "run"), data=dataclasses.replace(config.data, train=str(data))
    )
    with pytest.raises(RuntimeError):
        run_ppo(broken, callbacks=[Crash(2)])
    data.write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match="made with 8 prompts, the data now holds 7"):
        run_ppo(broken)


def kill_after(command: list[str], folder: Path, n_rows: int, environment: dict[str, str]) -> None:
    """Start a process group and SIGKILL all of it as soon as metrics.jsonl has that many rows."""
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    metrics = folder / "run" / "metrics.jsonl"
    while process.poll() is None and (not metrics.exists() or metrics.read_bytes().count(b"\n") < n_rows):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_sigkill(config, tmp_path, processes):
    """The command line, killed twice, against the command line left alone."""
    environment = os.environ | {
        "PYTHONPATH": f"tests{os.pathsep}.",
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    config = dataclasses.replace(config, rewards=[COUNT_E], num_updates=7, num_processes=processes)
    start = [sys.executable, "-m", "rlhf"]
    if processes == 2:
        start = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/cpu_2.yaml",
                 "--main_process_port", "0", "-m", "rlhf"]  # fmt: skip
    outcomes = []
    for name, kills in (("whole", []), ("killed", [2, 5])):
        folder = tmp_path / name
        folder.mkdir()
        command = [*start, *command_line(config, folder)]
        for n_rows in kills:
            kill_after(command, folder, n_rows, environment)
            assert not (folder / "run" / "done.json").exists()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        outcomes.append(outcome(folder / "run"))
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0]["metrics"]) == 7


@pytest.mark.slow
def test_sigterm_on_the_command_line(config, tmp_path):
    """Exit status 0, a line that says how to go on, and a checkpoint of the last update that was reported."""
    config = dataclasses.replace(config, num_updates=500, checkpoint=CheckpointConfig(save_steps=1000))
    command = [sys.executable, "-m", "rlhf", *command_line(config, tmp_path)]
    environment = os.environ | {"PYTHONPATH": f"tests{os.pathsep}.", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and (not metrics.exists() or metrics.read_bytes().count(b"\n") < 2):
        time.sleep(0.005)
    process.terminate()
    said, _ = process.communicate(timeout=60)
    done = len(read_jsonl(metrics))
    assert process.returncode == 0
    assert said == f"rlhf ppo: saved after update {done} of 500; the same command continues\n"
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [f"checkpoint-{done:06d}"]
