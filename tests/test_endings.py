"""How a stage ends: where its files are, what a second start says, what a failed start leaves, and what is sent."""

import os
import subprocess
import sys

import pytest

from rlhf.cli import SENDS_NOTHING, main
from rlhf.config import TrackingConfig
from rlhf.models.locate import model_in
from rlhf.tracking.tracker import Tracker


@pytest.fixture
def arguments(tiny_models, pairs, tmp_path) -> list[str]:
    """`rlhf ppo`, as small as can be, into tmp_path/run."""
    return [
        "ppo", "--model", str(tiny_models["gpt2"]), "--data", pairs, "--output_dir", str(tmp_path / "run"),
        "--sampling.max_new_tokens", "4", "--num_updates", "1", "--batch_size", "4", "--tracking.wandb", "false",
    ]  # fmt: skip


def fails(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(argv))
    error = capsys.readouterr().err
    assert caught.value.code == 2, error
    return error


def raises(prompts, completions, **columns):
    raise KeyError("lost")


def test_a_run_says_where_everything_is_and_asked_again_that_it_is_finished(arguments, tmp_path, capsys):
    run = tmp_path / "run"
    main([*arguments, "--rewards", "react_heuristic"])
    said = capsys.readouterr().out.splitlines()
    assert said[-3:] == [
        f"policy       {run / 'policy'}",
        f"report       {run / 'report.html'}",
        f"metrics      {run / 'metrics.jsonl'}",
    ]
    assert all((run / name).exists() for name in ("policy", "report.html", "metrics.jsonl"))
    main([*arguments, "--rewards", "react_heuristic"])
    again = capsys.readouterr().out.splitlines()
    assert again[0] == f"{run} is finished, and nothing was done; for another run choose another output_dir"
    assert again[1:] == said[-3:]


@pytest.mark.parametrize("mistake", [["--data.train", "nowhere.jsonl"], ["--rewards", "test_endings.raises"]])
def test_a_start_that_failed_does_not_own_its_folder(arguments, mistake, capsys):
    """The second mistake shows only when the first batch is scored."""
    rewards = [] if "--rewards" in mistake else ["--rewards", "react_heuristic"]
    fails(capsys, *arguments, *mistake, *rewards)
    main([*arguments, "--rewards", "react_heuristic"])
    assert "report.html" in capsys.readouterr().out


def test_the_model_in_the_folder_of_a_run_is_found(arguments, pairs, tmp_path, capsys):
    main([*arguments, "--rewards", "react_heuristic"])
    run, out = tmp_path / "run", str(tmp_path / "evaluation")
    capsys.readouterr()
    main(["generate", "--model", str(run), "--prompt", "Hello", "--sampling.max_new_tokens", "3"])
    said = capsys.readouterr()
    assert said.out.startswith("### Hello\n")
    assert f"{run} is the folder of a run; the model in it is {run / 'policy'}" in said.err
    evaluate = ["evaluate", "--model", str(run), "--data.eval", pairs, "--rewards", "react_heuristic"]
    main([*evaluate, "--output_dir", out, "--sampling.max_new_tokens", "3"])
    assert capsys.readouterr().out.splitlines()[-1] == f"responses    {out}/responses.jsonl"
    main([*evaluate, "--output_dir", out, "--sampling.max_new_tokens", "3"])
    assert capsys.readouterr().out.startswith(f"{out} is finished, and nothing was done")


@pytest.mark.parametrize("place", ["policy", "model", "ppo/policy", "sft/model"])
def test_every_kind_of_run_is_looked_into(tmp_path, place):
    folder = tmp_path / place
    folder.mkdir(parents=True)
    (folder / ("policy.json" if "policy" in place else "config.json")).write_text("{}")
    assert model_in(str(tmp_path)) == str(folder)
    assert model_in(str(folder)) == str(folder)


def test_a_run_without_a_model_says_so(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("{}")
    assert "is a run without a model in it" in fails(capsys, "generate", "--model", str(tmp_path), "--prompt", "a")
    assert model_in("gpt2") == "gpt2"


def test_neither_prompt_nor_completion_commands_the_terminal(tiny_models, capsys):
    prompt = "\x1b]0;title\x07\x1b[31mred\rover\x9b2J\u202eltr"
    main(["generate", "--model", str(tiny_models["gpt2"]), "--prompt", prompt, "--sampling.max_new_tokens", "3"])
    said = capsys.readouterr().out
    assert "⟨U+001B⟩]0;title⟨U+0007⟩⟨U+001B⟩[31mred⟨U+000D⟩over⟨U+009B⟩2J⟨U+202E⟩ltr" in said
    assert not set(said) & set("\x1b\x07\r\x9b\u202e")


def test_nothing_is_sent_unasked():
    program = (
        "import rlhf.cli\n"
        "try: rlhf.cli.main(['generate', '--model', '/nowhere/x/y', '--prompt', 'a'])\n"
        "except SystemExit: pass\n"
        "from huggingface_hub import constants\n"
        "import os; print(constants.HF_HUB_DISABLE_TELEMETRY, os.environ['DISABLE_SAFETENSORS_CONVERSION'])"
    )
    environment = {name: value for name, value in os.environ.items() if name not in SENDS_NOTHING}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert result.stdout.splitlines()[-1] == "True 1"


def test_a_stage_that_is_called_from_python_does_not_tell_which_trainer_it_uses(monkeypatch):
    import trl
    from trl.trainer import base_trainer

    from rlhf.stages.resumable import resumable

    sent = []
    monkeypatch.setattr(base_trainer, "send_telemetry", lambda *args, **kwargs: sent.append(args))
    plain, ours = object.__new__(trl.SFTTrainer), object.__new__(resumable(trl.SFTTrainer))
    ours._send_telemetry()
    assert sent == []
    assert type(ours)._send_telemetry is not type(plain)._send_telemetry


@pytest.mark.parametrize("value", ["true", "1", "TRUE"])
def test_wandb_disabled_is_heard(tmp_path, monkeypatch, value):
    monkeypatch.setenv("WANDB_DISABLED", value)
    monkeypatch.setenv("WANDB_MODE", "offline")
    with Tracker(tmp_path, "ppo", TrackingConfig(wandb="online", tensorboard=False), {}) as tracker:
        assert tracker.mirrors == []
    assert not (tmp_path / "wandb").exists()
