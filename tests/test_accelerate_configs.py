"""configs/accelerate: read by accelerate itself, and run where CPU processes can run them."""

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_data import write_jsonl
from tiny_runs import make_config

from rlhf import cli
from rlhf.errors import OtherRankError, UserError
from rlhf.parallel import launch as launching
from rlhf.parallel import zero
from rlhf.stages.frame import join_data_parallel
from rlhf.stages.ppo import launch as launch_ppo

CONFIGS = {path.stem: path for path in sorted(Path("configs/accelerate").glob("*.yaml"))}
EXPECTED = {  # distributed type, processes in all, machines, what divides the model
    "cpu_1": ("NO", 1, 1, "ddp"),
    "cpu_2": ("MULTI_GPU", 2, 1, "ddp"),
    "deepspeed_zero2": ("DEEPSPEED", 8, 1, "deepspeed"),
    "fsdp2": ("FSDP", 8, 1, "fsdp"),
    "fsdp2_multi_node": ("FSDP", 16, 2, "fsdp"),
    "gpu_1": ("NO", 1, 1, "ddp"),
    "multi_gpu": ("MULTI_GPU", 8, 1, "ddp"),
    "multi_node": ("MULTI_GPU", 16, 2, "ddp"),
}
LENGTH = {"path": "test_accelerate_configs.slow_length"}
PPO = {
    "rewards": [LENGTH],
    "lora": {"r": 4, "alpha": 8},
    "sampling": {"max_new_tokens": 10},
    "num_updates": 8,
    "batch_size": 8,
    "mini_batch_size": 4,
    "num_ppo_epochs": 1,
    "inspect": {"prompts": 0},
    "tracking": {"tensorboard": False, "wandb": "disabled"},
}
LAUNCHED_WITHIN_S, ENDED_WITHIN_S = 120, 60


def command_of(path: Path) -> list[str]:
    """The arguments of `accelerate launch` in the command that stands at the top of a config."""
    lines = [line.removeprefix("# ") for line in path.read_text().splitlines() if line.startswith("# ")]
    [command] = [line for line in lines if "accelerate launch" in line]
    values = {"RANK": "0", "ADDRESS": "127.0.0.1"}
    return [values.get(word, word) for word in shlex.split(command.split("accelerate launch")[1])]


def test_there_is_an_expectation_for_every_config():
    assert list(CONFIGS) == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_accelerate_reads_the_config(name):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(CONFIGS[name]))
    assert (config.distributed_type.value, config.num_processes, config.num_machines) == EXPECTED[name][:3]
    assert config.mixed_precision == "no"
    assert config.use_cpu == (name == "cpu_1")
    first_line = CONFIGS[name].read_text().splitlines()[0]
    assert ("Not run" in first_line) == (not name.startswith("cpu"))


@pytest.mark.parametrize("name", EXPECTED)
def test_the_command_at_its_top_launches_what_it_says(name, monkeypatch):
    """Accelerate's own parser takes it, and its environment tells our processes what they are part of."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import launch as accelerate_launch

    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(command_of(CONFIGS[name])))
    _, n_processes, n_machines, engine = EXPECTED[name]
    assert arguments.config_file == str(CONFIGS[name])
    assert (arguments.num_processes, arguments.num_machines) == (n_processes, n_machines)
    asked_for = arguments.training_script_args
    assert asked_for[:3] == ["sft" if engine == "deepspeed" else "ppo", "--config", "FILE"]
    assert asked_for[3:] in ([], ["--num_processes", str(n_processes)])
    several = deepspeed_environment if engine == "deepspeed" else accelerate_launch.prepare_multi_gpu_env
    prepare = several if n_processes > 1 else one_process_environment
    for key, value in prepare(arguments).items():
        monkeypatch.setenv(key, value)
    assert launching.engine() == engine
    if engine == "deepspeed":
        if importlib.util.find_spec("deepspeed") is None:
            monkeypatch.setattr(zero, "require_extra", lambda *needed: None)
        zero.require_zero2(on_cpu=False)  # of what the launcher sets by default, nothing is refused
    if engine == "fsdp":
        from accelerate import FullyShardedDataParallelPlugin

        assert FullyShardedDataParallelPlugin().fsdp_version == 2
        launching.require_fsdp2_or_ddp()
        assert not launching.gathers_between_updates()


def deepspeed_environment(arguments):
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    arguments.deepspeed_fields_from_accelerate_config = "zero_stage"  # what launch_command adds
    return prepare_deepspeed_cmd_env(arguments)[1]


def one_process_environment(arguments):
    from accelerate.utils.launch import prepare_simple_launcher_cmd_env

    return prepare_simple_launcher_cmd_env(arguments)[1]


def slow_length(prompts, completions, **columns):
    time.sleep(0.3)
    return [float(len(text)) for text in completions]


def fails_on_the_second(prompts, completions, **columns):
    if launching.rank() == 1:
        raise ValueError("the reward server is away")
    return [0.0 for _ in completions]


@pytest.fixture
def ppo(tiny_models, pairs, tmp_path) -> Path:
    """The config of a PPO run of a few seconds, in the folder that it writes to."""
    given = {"model": {"name_or_path": str(tiny_models["gpt2"])}, "data": {"train": pairs}}
    given["output_dir"] = str(tmp_path / "run")
    file = tmp_path / "ppo.yaml"
    file.write_text(yaml.safe_dump(PPO | given))
    return file


def start(*arguments: str, cpu: str = "true") -> subprocess.Popen:
    """`accelerate launch`, with what it prints in one stream."""
    env = os.environ | {"ACCELERATE_USE_CPU": cpu, "PYTHONPATH": f"tests{os.pathsep}.", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "accelerate.commands.launch", *arguments]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def with_config(name: str, *arguments: str) -> list[str]:
    return ["--config_file", str(CONFIGS[name]), "--main_process_port", "0", *arguments]


def children(process: subprocess.Popen) -> list[int]:
    """The training processes of a launcher, in the order of their ranks."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return sorted(map(int, found.split()))


def wait_for_updates(folder: Path, n: int) -> None:
    deadline = time.monotonic() + LAUNCHED_WITHIN_S
    metrics = folder / "metrics.jsonl"
    while not (metrics.is_file() and len(metrics.read_text().splitlines()) >= n):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def said(output: str) -> list[str]:
    """Our own error lines among what accelerate and torch print."""
    return [line for line in output.splitlines() if re.match(r"rlhf \w+: ", line)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("cpu_1", marks=pytest.mark.long), "cpu_2"])
def test_a_run_whose_launcher_is_asked_to_stop_saves_first(ppo, tmp_path, name):
    """SIGTERM reaches the processes of a launcher that forwards it (cpu_2) and of one that just dies (cpu_1)."""
    launcher = start(*with_config(name, "-m", "rlhf", "ppo", "--config", str(ppo)))
    wait_for_updates(tmp_path / "run", 2)
    launcher.send_signal(signal.SIGTERM)
    output, _ = launcher.communicate(timeout=ENDED_WITHIN_S)  # ends when the last process has closed the stream
    done = len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert said(output) == [f"rlhf ppo: saved after update {done} of {PPO['num_updates']}; the same command continues"]
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [f"checkpoint-{done:06d}"]


@pytest.mark.slow
def test_one_process_that_is_killed_ends_the_others(ppo, tmp_path):
    launcher = start(*with_config("cpu_2", "-m", "rlhf", "ppo", "--config", str(ppo)))
    wait_for_updates(tmp_path / "run", 2)
    os.kill(children(launcher)[1], signal.SIGKILL)
    launcher.communicate(timeout=ENDED_WITHIN_S)
    assert launcher.returncode != 0
    assert not (tmp_path / "run" / "policy").exists()


@pytest.mark.slow
def test_an_error_on_one_process_is_said_by_that_one(ppo, tmp_path):
    config = yaml.safe_load(ppo.read_text()) | {"rewards": [{"path": "test_accelerate_configs.fails_on_the_second"}]}
    ppo.write_text(yaml.safe_dump(config))
    launcher = start(*with_config("multi_gpu", "--num_processes", "2", "-m", "rlhf", "ppo", "--config", str(ppo)))
    output, _ = launcher.communicate(timeout=LAUNCHED_WITHIN_S)
    assert launcher.returncode != 0
    [line] = said(output)
    assert "fails_on_the_second" in line
    assert "the reward server is away" in line
    assert "[rank0]: Traceback" not in output


@pytest.mark.long
@pytest.mark.slow
def test_two_launchers_make_one_run(ppo, tmp_path):
    """The multi-node config, with both machines on this one."""
    port = str(29600 + os.getpid() % 1000)
    machines = [
        start(
            *("--config_file", str(CONFIGS["multi_node"]), "--num_processes", "2", "--machine_rank", str(index)),
            *("--main_process_port", port, "-m", "rlhf", "ppo", "--config", str(ppo), "--num_processes", "2"),
        )
        for index in range(2)
    ]
    # now and then torch's first launcher waits its five minutes for the second, which has gone already
    outputs = [machine.communicate(timeout=LAUNCHED_WITHIN_S + 300)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], outputs
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 8
    assert "ppo 8/8" in outputs[0]
    assert "ppo 8/8" not in outputs[1]


@pytest.mark.long
@pytest.mark.slow
def test_a_divided_base_is_resumed_bit_for_bit(ppo, tmp_path, pairs):
    """With what one process does alone (inspection) or more of than the other (three held-out prompts)."""
    config = yaml.safe_load(ppo.read_text()) | {"data": {"train": pairs, "eval": pairs}, "inspect": {"prompts": 1}}
    ppo.write_text(yaml.safe_dump(config | {"num_updates": 4, "evaluation": {"every": 2, "prompts": 3}}))
    divided = with_config("fsdp2", "--num_processes", "2", "-m", "rlhf", "ppo", "--config", str(ppo), "--output_dir")
    launcher = start(*divided, str(tmp_path / "stopped"))
    wait_for_updates(tmp_path / "stopped", 1)
    launcher.send_signal(signal.SIGTERM)
    output, _ = launcher.communicate(timeout=ENDED_WITHIN_S)
    assert "the base is divided among processes" in output
    assert any("the same command continues" in line for line in said(output))
    adapters = []
    for name in ("stopped", "whole"):
        finished(*divided, str(tmp_path / name))
        adapters.append(load_file(tmp_path / name / "policy" / "adapter_model.safetensors"))
    assert adapters[0].keys() == adapters[1].keys()
    assert all(torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0])


def test_a_stage_for_one_process_is_refused_in_one_line(ppo):
    launcher = start(*with_config("cpu_2", "-m", "rlhf", "evaluate", "--config", str(ppo)))
    output, _ = launcher.communicate(timeout=LAUNCHED_WITHIN_S)
    message = "evaluate runs on one process, but 2 were launched; start it without accelerate launch"
    assert said(output) == [f"rlhf evaluate: error: {message}"]


def test_two_cpu_processes_of_which_accelerate_starts_one_are_noticed(monkeypatch):
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    command = ["--cpu", "--num_processes", "2", "-m", "rlhf"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    for key, value in one_process_environment(arguments).items():
        monkeypatch.setenv(key, value)
    with pytest.raises(UserError, match="asked for several CPU processes and has started one"):
        launching.join_processes(None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU they find each other")
def test_processes_that_would_train_on_their_own_are_noticed(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launching.join_processes(None).num_processes == 1
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(UserError, match="2 processes were launched, but without a GPU each would train on its own"):
        launching.join_processes(None)


@pytest.mark.parametrize(
    ("environment", "options", "message"),
    [
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, {}, "mixed_precision is bf16; model.dtype sets the precision"),
        ({}, {"num_processes": 2}, "num_processes is 2, but 1 were launched"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, {}, "ppo does not run on deepspeed"),
    ],
)
def test_a_launch_that_contradicts_the_config(tiny_models, pairs, monkeypatch, environment, options, message):
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    try:
        with pytest.raises(UserError, match=message):
            launch_ppo(make_config(tiny_models["gpt2"], pairs, **options))
        for stage in ("sft", "reward") if "ACCELERATE_MIXED_PRECISION" in environment else ():
            with pytest.raises(UserError, match=message):
                join_data_parallel(stage, None)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def finished(*arguments: str, cpu: str = "true") -> str:
    """What a launch prints that ends well."""
    launcher = start(*arguments, cpu=cpu)
    output, _ = launcher.communicate(timeout=LAUNCHED_WITHIN_S)
    assert launcher.returncode == 0, output
    return output


def without_key_bias(name: str, parameter: torch.Tensor) -> torch.Tensor:
    """Attention does not depend on the bias of the keys: its gradient is rounding, which Adam makes a step of."""
    if not name.endswith("c_attn.bias"):
        return parameter
    query, _, value = parameter.chunk(3)
    return torch.cat([query, value])


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", pytest.param("reward", marks=pytest.mark.long)])
def test_two_processes_fine_tune_like_one(tiny_models, tmp_path, stage):
    """`batch_size` is that of all processes; twelve rows of different lengths, three steps in each of two epochs."""
    words = ["Save", "Send", "Open", "Close", "Start", "Stop", "More", "Less", "Up", "Down", "In", "Out"]
    rows = [
        {"prompt": f"Show {word}", "completion": f"{word} " * n, "chosen": f"{word} " * n, "rejected": "no " * n}
        for n, word in enumerate(words, start=1)
    ]
    wanted = ("prompt", "completion") if stage == "sft" else ("prompt", "chosen", "rejected")
    data = write_jsonl(tmp_path / "rows.jsonl", [{name: row[name] for name in wanted} for row in rows])
    command = [stage, "--model.name_or_path", str(tiny_models["gpt2"]), "--data.train", data, "--data.eval", data]
    command += ["--num_train_epochs", "2", "--batch_size", "4", "--micro_batch_size", "2", "--learning_rate", "0.01"]
    command += ["--tracking", "{tensorboard: false, wandb: disabled}"]
    cli.main([*command, "--output_dir", str(tmp_path / "alone")])
    together = ["--output_dir", str(tmp_path / "together"), "--num_processes", "2"]
    finished(*with_config("cpu_2", "-m", "rlhf", *command, *together))
    models = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("alone", "together")]
    base = load_file(tiny_models["gpt2"] / "model.safetensors")
    moved = max((models[0][name] - base[name]).abs().max() for name in models[0].keys() & base.keys())
    assert moved > 1e-3
    for name in models[0]:
        one, two = (without_key_bias(name, model[name]) for model in models)
        assert (one - two).abs().max() < 1e-6, name
    losses = [
        [json.loads(row)[f"{stage}/loss"] for row in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("alone", "together")
    ]
    assert len(losses[0]) == 6
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


def test_engines_that_a_stage_cannot_use(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(UserError, match="ppo does not run on deepspeed"):
        launching.require_no_deepspeed()
    with pytest.raises(UserError, match=r"the classic loop keeps the whole model .* told to use deepspeed"):
        launching.require_data_parallel("the classic loop")
    launching.require_data_parallel("sft", or_zero2=True)
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED")
    launching.require_data_parallel("sft")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match=r"sft keeps the whole model .* told to use fsdp"):
        launching.require_data_parallel("sft", or_zero2=True)
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(UserError, match="fsdp version 1; ppo runs on version 2"):
        launching.require_fsdp2_or_ddp()


def test_a_common_mistake_is_said_by_the_first_process(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    for rank, error in [("0", UserError), ("1", OtherRankError)]:
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(UserError) as caught, launching.said_once():
            launching.require_one_process("report")
        assert caught.type is error


STALLED = """
import time
from datetime import timedelta
from rlhf.parallel import launch
from rlhf.parallel.ranks import Ranks

launch.STALL_LIMIT = timedelta(seconds=2)
ranks = Ranks.of(launch.join_processes(2))
ranks.exchange(lambda: None)
ranks.exchange(lambda: time.sleep(600 * ranks.index))
"""


@pytest.mark.slow
def test_a_process_that_stalls_ends_the_run_after_the_limit(tmp_path):
    script = tmp_path / "stalled.py"
    script.write_text(STALLED)
    launcher = start(*with_config("cpu_2", str(script)))
    output, _ = launcher.communicate(timeout=LAUNCHED_WITHIN_S)  # much less than the process would stall
    assert launcher.returncode != 0
    assert "Timed out waiting 2000ms" in output
