"""The example config of README.md, with a small model, its data and its reward, as files."""

import re
from pathlib import Path

import yaml
from documents import text_of
from tiny_data import write_jsonl

REWARD = "def politeness(prompts, completions, **columns):\n    return [float(len(text)) for text in completions]\n"


def write_example(folder: Path, model: Path) -> None:
    """my_ppo.yaml, my_prompts.jsonl and my_rewards.py; the run is one update and lands in runs/mine."""
    example = re.search(r"```yaml\n(# my_ppo.yaml.*?)```", text_of("README.md"), flags=re.DOTALL)[1]
    small = {"model": {"name_or_path": str(model)}, "num_updates": 1, "batch_size": 4, "mini_batch_size": 4}
    config = yaml.safe_load(example) | small | {"sampling": {"max_new_tokens": 8}}
    (folder / "my_ppo.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (folder / "my_rewards.py").write_text(REWARD, encoding="utf-8")
    write_jsonl(folder / "my_prompts.jsonl", [{"prompt": "Please."}, {"prompt": "Thank you."}])
