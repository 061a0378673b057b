"""What the README shows runs as it stands there, but for the model."""

import re
from pathlib import Path

from readme_example import write_example

from rlhf.cli import STAGES, main

README = Path("README.md").read_text()


def test_the_table_has_every_command():
    """With configs that are there; that the commands run is tested in test_docs_commands.py."""
    rows = re.findall(r"^\| `rlhf ([\w-]+)` \|.*\|(.*)\|$", README, flags=re.MULTILINE)
    assert {name for name, _ in rows} == {*STAGES, "report", "toy"}
    configs = [config for _, cell in rows for config in re.findall(r"`([^`]+)`", cell)]
    assert len(configs) >= 6
    assert [config for config in configs if not Path(config).exists()] == []


def test_the_example_config_is_examined_and_trains(tiny_models, tmp_path, monkeypatch, capsys):
    write_example(tmp_path, tiny_models["gpt2"])
    monkeypatch.chdir(tmp_path)
    main(["doctor", "--config", "my_ppo.yaml"])
    assert "verdict" in capsys.readouterr().out
    main(["ppo", "--config", "my_ppo.yaml"])
    assert (tmp_path / "runs/mine/policy/adapter_model.safetensors").is_file()


def test_the_classic_loop_runs(tiny_models, capsys):
    [example] = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 18
    exec(example.replace('"gpt2"', repr(str(tiny_models["gpt2"]))), {})
    assert len(capsys.readouterr().out.splitlines()) == 2
