"""SFT and reward models that were killed end as if nothing had happened: real processes, real SIGKILL and SIGTERM."""

import functools
import importlib
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
import torch
import transformers
from tiny_data import TEXTS, write_jsonl

from rlhf import cli
from rlhf.config import (
    CheckpointConfig,
    DataConfig,
    LoraConfig,
    ModelConfig,
    RewardModelConfig,
    ScratchModel,
    SFTConfig,
    TrackingConfig,
)
from rlhf.errors import Interrupted, UserError
from rlhf.evaluation.held_out import HeldOut
from rlhf.parallel.ranks import Ranks
from rlhf.stages.hf_trainer import run_trainer, training_arguments
from rlhf.stages.resumable import load_parameters, resumable, trainable

STEPS = 13  # ten rows by twos are 5 steps in each of 2.6 epochs
# Each run is a process of its own, forked from one in which the libraries are imported and nothing else has happened.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    [
        "rlhf.stages.sft",
        "rlhf.stages.reward_model",
        "datasets",
        "peft",
        "trl.trainer.sft_trainer",
        "trl.trainer.reward_trainer",
    ]
)
MOMENTS = {
    "backward": ("accelerate", "Accelerator.backward"),
    "metrics": ("rlhf.tracking.tracker", "Tracker.log"),
    "state file": ("rlhf.stages.resumable", "save_state"),
    "checkpoint": ("rlhf.runs.checkpoints", "CheckpointManager.save"),
    "model": ("transformers", "PreTrainedModel.save_pretrained"),
    "done": ("rlhf.stages.frame", "mark_done"),
}


def signal_after(moment: str, count: int, number: int) -> None:
    """Send this process a signal at the end of call number `count` of the function that a moment stands for."""
    module, path = MOMENTS[moment]
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    function, calls = getattr(owner, name), []

    def wrapped(*args, **kwargs):
        result = function(*args, **kwargs)
        calls.append(moment)
        if len(calls) == count:
            os.kill(os.getpid(), number)
        return result

    setattr(owner, name, wrapped)


def stage(config, log: Path, signalled: tuple | None) -> None:
    """What `rlhf sft` and `rlhf reward` do, with their output in a file."""
    with open(log, "w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    torch.set_num_threads(1)
    if signalled:
        signal_after(*signalled)
    name = "sft" if isinstance(config, SFTConfig) else "reward"
    cli.parse = lambda *arguments: config
    cli.main([name])


def run(config, folder: Path, signalled: tuple | None = None) -> tuple[int, str]:
    """Exit status (negative: a signal) and output of a run in a folder."""
    log = folder.with_suffix(".log")
    process = processes.Process(target=stage, args=(replace(config, output_dir=str(folder)), log, signalled))
    process.start()
    process.join()
    return process.exitcode, log.read_text()


@pytest.fixture(scope="module")
def configs(tiny_models, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for number in range(10):  # of different lengths
        prompt, completion = TEXTS[number % len(TEXTS)].split("\n", 1)
        rows.append({"prompt": prompt, "completion": completion[: 8 + 5 * number]})
    preferences = [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": row["completion"][::-1]} for row in rows
    ]
    common = {
        "num_train_epochs": 2.6, "batch_size": 2, "micro_batch_size": 1, "learning_rate": 1e-2,
        "checkpoint": CheckpointConfig(save_steps=4), "tracking": TrackingConfig(wandb="disabled", tensorboard=False),
    }  # fmt: skip
    data = DataConfig(train=write_jsonl(folder / "pairs.jsonl", rows))
    preference_data = DataConfig(train=write_jsonl(folder / "preferences.jsonl", preferences))
    preference_data = replace(preference_data, eval=preference_data.train)
    scratch = ScratchModel(hidden_size=16, layers=1, heads=2, context_length=96, vocab_size=260)
    gpt2, llama = (ModelConfig(name_or_path=str(tiny_models[name])) for name in ("gpt2", "llama"))
    return {
        "full": SFTConfig(model=ModelConfig(scratch=scratch), data=data, **common),
        "lora": SFTConfig(model=llama, data=data, lora=LoraConfig(r=4), **common),
        "reward": RewardModelConfig(model=gpt2, data=preference_data, lora=LoraConfig(r=4), **common),
    }


@pytest.fixture(scope="module")
def uninterrupted(configs, tmp_path_factory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp(name) / "run" for name in configs}
    for name, config in configs.items():
        # Checkpoints must not disturb what they save, so these runs go without.
        status, output = run(replace(config, checkpoint=CheckpointConfig(save_steps=1000)), folders[name])
        assert status == 0, output
        assert len((folders[name] / "metrics.jsonl").read_text().splitlines()) == STEPS
    return folders


def assert_same_result(folder: Path, expected: Path) -> None:
    assert (folder / "metrics.jsonl").read_text() == (expected / "metrics.jsonl").read_text()
    files = [path.relative_to(expected) for path in (expected / "model").rglob("*")]
    assert any(path.suffix == ".safetensors" for path in files)
    for path in files:
        assert (folder / path).read_bytes() == (expected / path).read_bytes(), path
    assert (folder / "done.json").is_file()
    assert not (folder / "checkpoints").exists()


@pytest.mark.parametrize(
    ("kind", "every", "kills"),
    [
        ("full", 4, [("metrics", 3)]),  # before the first checkpoint
        ("full", 4, [("metrics", 11), ("backward", 5), ("metrics", 4)]),  # three times; from the middle of epoch 2
        ("full", 5, [("metrics", 6), ("metrics", 6)]),  # from the ends of epochs 1 and 2
        ("full", 1, [("metrics", 6), ("metrics", 3)]),  # from the end of epoch 1; from the middle of epoch 2
        ("full", 4, [("state file", 3), ("checkpoint", 1)]),  # in the second checkpoint; after the next
        ("full", STEPS, [("model", 1)]),  # all steps done, the model not yet written
        ("full", 4, [("done", 1)]),  # all done, the checkpoints still there
        ("lora", 4, [("metrics", 11), ("backward", 6)]),
        ("reward", 4, [("metrics", 11), ("model", 1)]),
    ],
)
def test_killed_and_restarted(configs, uninterrupted, tmp_path, kind, every, kills):
    config, folder = replace(configs[kind], checkpoint=CheckpointConfig(save_steps=every)), tmp_path / "run"
    for moment, count in kills:
        status, output = run(config, folder, (moment, count, signal.SIGKILL))
        assert status == -signal.SIGKILL, output
    status, output = run(config, folder)
    assert status == 0, output
    assert_same_result(folder, uninterrupted[kind])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_in_the_middle_of_a_step(configs, uninterrupted, tmp_path, number):
    """The 13th backward pass is the first half of step 7."""
    folder = tmp_path / "run"
    status, output = run(configs["full"], folder, ("backward", 13, number))
    assert status == 0
    assert output.splitlines()[-1] == (
        "rlhf sft: stopped after step 7 of 13, with a checkpoint; the same command continues from there"
    )
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 7
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "checkpoint-000004",
        "checkpoint-000007",
    ]
    assert not [
        path for path in (folder / "checkpoints").rglob("*") if path.suffix not in ("", ".json", ".safetensors")
    ]
    status, output = run(configs["full"], folder)
    assert f"continuing after step 7, from {folder / 'checkpoints' / 'checkpoint-000007'}" in output
    assert_same_result(folder, uninterrupted["full"])


def test_asked_to_stop_in_the_last_step(configs, uninterrupted, tmp_path):
    status, output = run(configs["full"], tmp_path / "run", ("backward", 2 * STEPS, signal.SIGTERM))
    assert status == 0, output
    assert_same_result(tmp_path / "run", uninterrupted["full"])


def test_the_checkpoint_before_a_damaged_one_is_used(configs, uninterrupted, tmp_path):
    folder = tmp_path / "run"
    run(configs["full"], folder, ("metrics", 10, signal.SIGKILL))
    damaged = folder / "checkpoints" / "checkpoint-000008"
    content = bytearray((damaged / "parameters.safetensors").read_bytes())
    content[-1] ^= 1
    (damaged / "parameters.safetensors").write_bytes(content)
    status, output = run(configs["full"], folder)
    assert status == 0
    assert f"{damaged} is damaged (parameters.safetensors" in output
    assert "continuing after step 4" in output
    assert_same_result(folder, uninterrupted["full"])


class StopInStep7(transformers.TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 6:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_model_that_draws_random_numbers(configs, tmp_path):
    """With dropout, the generators have to go on from where they were when the batch at hand had been fetched."""

    def train(folder: Path, *callbacks) -> dict[str, torch.Tensor]:
        transformers.set_seed(0)
        shape = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 50, "n_positions": 8}
        special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, **special, resid_pdrop=0.5))
        arguments = training_arguments(configs["full"], folder, "cpu")
        del arguments["max_length"]  # TRL's own
        rows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(0, 50, (10, 8)).tolist()]
        trainer = resumable(transformers.Trainer)(
            model,
            transformers.TrainingArguments(**arguments),
            train_dataset=datasets.Dataset.from_list(rows),
            callbacks=[*callbacks],
        )
        folder.mkdir(exist_ok=True)
        not_measured = HeldOut(None, "step", Ranks(), dict, print, folder / "model-best")
        run_trainer(trainer, "sft", folder, configs["full"], {}, not_measured)
        return trainable(model)

    uninterrupted = train(tmp_path / "uninterrupted")
    with pytest.raises(Interrupted, match="after step 7 of 13"):
        train(tmp_path / "run", StopInStep7())
    resumed = train(tmp_path / "run")
    assert all(torch.equal(resumed[name], value) for name, value in uninterrupted.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: saved.pop("bias"), r"'bias' is missing there and torch.float32 \(2,\) here"),
        (lambda saved: saved.update(x=torch.ones(1)), r"'x' is torch.float32 \(1,\) there and missing here"),
        (lambda saved: saved.update(bias=torch.ones(3)), r"'bias' is torch.float32 \(3,\) there"),
        (lambda saved: saved.update(bias=torch.ones(2).double()), r"'bias' is torch.float64 \(2,\) there"),
    ],
)
def test_parameters_of_another_model_are_refused_before_any_is_changed(change, message):
    model = torch.nn.Linear(3, 2)
    saved = {name: torch.full_like(value, 7.0) for name, value in trainable(model).items()}
    change(saved)
    with pytest.raises(UserError, match=message):
        load_parameters(trainable(model), saved, Path("checkpoint-000004"))
    assert not (model.weight == 7.0).any()
