"""What the README shows runs as it stands there, but for the model."""

import re
from pathlib import Path

import yaml
from tiny_data import write_jsonl

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
    example = re.search(r"```yaml\n(# my_ppo.yaml.*?)```", README, flags=re.DOTALL)[1]
    small = {
        "model": {"name_or_path": str(tiny_models["gpt2"])},
        "num_updates": 1,
        "batch_size": 4,
        "mini_batch_size": 4,
    }
    config = yaml.safe_load(example) | small | {"sampling": {"max_new_tokens": 8}}
    write_jsonl(tmp_path / "my_prompts.jsonl", [{"prompt": "Please."}, {"prompt": "Thank you."}])
    reward = "def politeness(prompts, completions, **columns):\n    return [float(len(text)) for text in completions]\n"
    (tmp_path / "my_rewards.py").write_text(reward)
    (tmp_path / "my_ppo.yaml").write_text(yaml.safe_dump(config))
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
