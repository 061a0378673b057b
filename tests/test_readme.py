"""The README's commands are real: each one is accepted by the command line, and what it names is there."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from conftest import write_jsonl

from rlhf.cli import STAGES, main, parse

README = Path("README.md").read_text()


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("rlhf ")]


@pytest.mark.parametrize("command", [line for line in commands() if not line.startswith("rlhf toy")])
def test_command_is_accepted(command):
    _, stage, *argv = shlex.split(command)
    assert type(parse(stage, STAGES[stage], argv)).__name__ == STAGES[stage].config


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert len(links) > 8
    missing = [link for link in links if not Path(link).exists()]
    assert not missing


def test_the_example_config_trains(tiny_models, tmp_path, monkeypatch):
    example = re.search(r"```yaml\n(# my_ppo.yaml.*?)```", README, flags=re.DOTALL)[1]
    small = {"model": {"name_or_path": str(tiny_models["gpt2"])}, "updates": 1, "batch_size": 4, "minibatch_size": 4}
    config = yaml.safe_load(example) | small | {"sampling": {"max_response_tokens": 8}}
    write_jsonl(tmp_path / "my_prompts.jsonl", [{"prompt": "Please."}, {"prompt": "Thank you."}])
    reward = "def politeness(prompts, completions, **columns):\n    return [float(len(text)) for text in completions]\n"
    (tmp_path / "my_rewards.py").write_text(reward)
    (tmp_path / "my_ppo.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    main(["ppo", "--config", "my_ppo.yaml"])
    assert (tmp_path / "runs/mine/policy/adapter_model.safetensors").is_file()


def test_the_classic_loop_runs(tiny_models, capsys):
    [example] = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 18
    exec(example.replace('"gpt2"', repr(str(tiny_models["gpt2"]))), {})
    assert len(capsys.readouterr().out.splitlines()) == 2
