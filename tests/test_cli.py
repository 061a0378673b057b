"""The command line as a user meets it: fast help, one clear line for every mistake."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_data import write_jsonl

from rlhf.cli import STAGES, main
from rlhf.config.command_line import parse

CONFIGS = sorted(set(Path("configs").rglob("*.yaml")) - set(Path("configs/accelerate").iterdir()))
STAGE_OF_FILE = {"reward.yaml": "reward", "react_repair_sft.yaml": "sft", "react_repair_ppo.yaml": "ppo"}
STAGE_OF_FOLDER = {
    "configs": "pipeline",
    "smollm2": "pipeline",
    "environments": "pipeline",
    "sft": "sft",
    "ppo": "ppo",
    "evaluate": "evaluate",
    "reward": "reward",
}


def run(*argv: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "rlhf", *argv], capture_output=True, text=True, check=False)


def fails(capsys, *argv: str) -> str:
    """Run the command in this process; returns its standard error, which must be one line."""
    with pytest.raises(SystemExit) as caught:
        main(list(argv))
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def ppo_config(tmp_path, tiny_models, pairs, **changes) -> str:
    config = {
        "output_dir": str(tmp_path / "run"),
        "model": {"name_or_path": str(tiny_models["gpt2"])},
        "data": {"train": pairs},
        "rewards": [{"path": "react_heuristic"}],
        "sampling": {"max_new_tokens": 8},
        "num_updates": 1,
        "batch_size": 4,
        "mini_batch_size": 4,
        "micro_batch_size": 4,
    }
    file = tmp_path / "ppo.yaml"
    file.write_text(yaml.safe_dump(config | changes))
    return str(file)


@pytest.mark.parametrize("command", [[], ["ppo"], ["pipeline"]])
def test_help_loads_no_heavy_library(command):
    program = (
        "import sys; from rlhf.cli import main\n"
        f"try: main({[*command, '--help']!r})\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'trl', 'peft', 'datasets', 'wandb'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("[]\n")
    assert "usage: rlhf" in result.stdout


def test_maths_and_toys_load_no_library_but_torch():
    program = (
        "import sys, rlhf.maths.losses, rlhf.toy, rlhf.rewards\n"
        "print(sorted({'transformers', 'trl', 'peft', 'datasets', 'wandb', 'matplotlib'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


@pytest.mark.parametrize("file", CONFIGS, ids=str)
def test_shipped_configs_are_accepted(file):
    stage = STAGE_OF_FILE.get(file.name) or STAGE_OF_FOLDER[file.parent.name]
    config = parse(STAGES[stage].config_class, ["--config", str(file)])
    assert config.output_dir.startswith("runs/")


def test_dotted_overrides(tmp_path, tiny_models, pairs):
    file = ppo_config(tmp_path, tiny_models, pairs)
    config = parse(STAGES["ppo"].config_class, ["--config", file, "--lora.r", "8", "--learning_rate", "5e-6"])
    assert (config.lora.r, config.learning_rate) == (8, 5e-6)
    assert config.sampling.max_new_tokens == 8


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"learning_rat": 1}, "learning_rat"),
        ({"sampling": {"temprature": 1}}, "unknown key 'sampling.temprature'; did you mean sampling.temperature?"),
        ({"batch_size": "many"}, "batch_size"),
        ({"critic": "none"}, "critic"),
        ({"batch_size": 2}, "mini_batch_size 4 is larger than batch_size 2"),
        ({"data": {"train": "nowhere.jsonl"}}, "'nowhere.jsonl' does not exist"),
        ({"model": {"name_or_path": "./nowhere"}}, "'./nowhere' does not exist"),
        ({"model": {}}, "model.name_or_path is not set"),
        ({"sampling": {"max_new_tokens": 96}}, "more than the model's context of 96"),
        ({"rewards": [{"path": "react_heuristik"}]}, "unknown reward 'react_heuristik'"),
        ({"rewards": [{"path": "test_cli.too_few"}]}, "reward 'too_few' returned 1 scores for 4 samples"),
        ({"rewards": [{"path": "test_cli.not_a_number"}]}, "reward 'not_a_number' returned the score nan"),
        ({"rewards": [{"path": "test_cli.raises"}]}, "reward 'raises' raised KeyError: 'lost'"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value)[:50],
)
def test_mistakes_get_one_line(tmp_path, tiny_models, pairs, capsys, changes, expected):
    assert expected in fails(capsys, "ppo", "--config", ppo_config(tmp_path, tiny_models, pairs, **changes))


def test_reward_error_shows_prompt_and_completion(tmp_path, tiny_models, pairs, capsys):
    changes = {"rewards": [{"path": "test_cli.raises"}]}
    error = fails(capsys, "ppo", "--config", ppo_config(tmp_path, tiny_models, pairs, **changes))
    assert "prompt 'Show a button saying" in error
    assert "completion '" in error


def too_few(prompts, completions, **columns):
    return [1.0]


def not_a_number(prompts, completions, **columns):
    return [float("nan")] * len(prompts)


def raises(prompts, completions, **columns):
    raise KeyError("lost")


def test_missing_config_file_and_unknown_command(capsys):
    assert "nowhere.yaml" in fails(capsys, "ppo", "--config", "nowhere.yaml")
    assert "unknown command 'pppo'; choose one of pipeline" in fails(capsys, "pppo")


def test_an_output_folder_of_another_run_is_left_alone(tmp_path, tiny_models, pairs, capsys):
    file = ppo_config(tmp_path, tiny_models, pairs)
    main(["ppo", "--config", file])
    capsys.readouterr()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    main(["ppo", "--config", file])  # the same run again: nothing to do
    error = fails(capsys, "ppo", "--config", file, "--kl_coef", "0.5")
    assert "already holds a different run (kl_coef was 0.05 and is 0.5)" in error
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_a_folder_with_foreign_files_is_refused(tmp_path, tiny_models, pairs, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("precious")
    error = fails(capsys, "ppo", "--config", ppo_config(tmp_path, tiny_models, pairs))
    assert "is not empty and holds no run of ours" in error


def test_score_writes_every_component(tmp_path, capsys):
    rows = [
        {"prompt": "a", "completion": "return <br/>", "reference": "return <br/>"},
        {"prompt": "b", "completion": "x", "reference": "return <br/>"},
    ]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    output = tmp_path / "out.jsonl"
    rewards = "[{path: react_heuristic}, {path: react_parses, weight: 0.5}]"
    main(["score", "--input", source, "--output", str(output), "--rewards", rewards])
    scored = [yaml.safe_load(line) for line in output.read_text().splitlines()]
    assert scored[0]["rewards"]["react_heuristic"] == pytest.approx(1.5)  # same length, all three marks
    assert scored[1]["rewards"]["react_heuristic"] == pytest.approx(1.0 - 0.1 * 11 / 12)
    for row in scored:
        assert row["reward"] == pytest.approx(row["rewards"]["react_heuristic"] + 0.5 * row["rewards"]["react_parses"])
    assert "react_heuristic" in capsys.readouterr().out


def test_installed_as_module():
    assert "usage: rlhf COMMAND" in run("--help").stdout
    result = run("ppo", "--config", "nowhere.yaml")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
