"""What model cards are put together from: front matter, tables, code that loads the model."""

import functools
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rlhf.config import DataConfig, LoraConfig, ModelConfig
from rlhf.config.gguf import split_path
from rlhf.config.secrets import mask_secrets
from rlhf.data.sources import SUFFIXES
from rlhf.errors import UserError
from rlhf.report.tables import markdown_table

Row = Mapping[str, Any]
AVERAGED, TAIL_BYTES = 20, 1 << 16
"""Updates that a mean at the start or the end of a run takes in at most; how much of a file's end is read at first."""
MEASURED = {
    "objective/score": "score, the weighted sum of the rewards",
    "objective/kl": "KL to the base model, nats per response",
    "objective/entropy": "entropy, nats per token",
    "response/length": "tokens per response",
    "response/eos_rate": "share of responses that end by themselves",
}

LOAD_POLICY = """\
With [PEFT](https://huggingface.co/docs/peft) and transformers:

```python
from peft import PeftConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # that of this file
base = PeftConfig.from_pretrained(folder).base_model_name_or_path
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, {gguf}dtype="{dtype}"), folder)
{generate}```

"""
LOAD_POLICY_HERE = """\
With rlhf{reads}:

```python
from pathlib import Path

from rlhf.policy.files import load_policy

policy = load_policy(Path("."))
```"""
LOAD_MODEL = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # that of this file
model = AutoModelForCausalLM.from_pretrained(folder, dtype="{dtype}")
{generate}```"""
GENERATE = """\
tokenizer = AutoTokenizer.from_pretrained(folder)
{prompt}
output = model.generate(**prompt, {sampling})
print(tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
"""
TEXT_PROMPT = 'prompt = tokenizer("Your prompt", return_tensors="pt")'
CHAT_PROMPT = """\
messages = {messages}
prompt = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True{more}
)"""
LOAD_REWARD_MODEL = """\
```python
from rlhf.rewards.learned import RewardModel

reward = RewardModel(".")  # the folder of this file; scores have mean 0 and standard deviation 1 on its training texts
print(reward(["Your prompt"], ["A completion"]))
```

As a reward of PPO: `rewards: [{path: reward_model, args: {path: FOLDER}}]`."""


def assemble(front: str, title: str, lead: str, sections: Mapping[str, str]) -> str:
    """A card: front matter, title, a sentence, and each section under its heading."""
    parts = [front, f"# {title}", lead, *(f"## {heading}\n\n{text}" for heading, text in sections.items())]
    return "\n\n".join(parts) + "\n"


def front_matter(model: ModelConfig, data: DataConfig, library: str, task: str, tags: Sequence[str]) -> str:
    """The YAML block that the hub reads; a local base model or data file has no name there and is left out."""
    facts = {
        "base_model": None if is_local(model.name_or_path) else model.name_or_path,
        "library_name": library,
        "pipeline_tag": task,
        "tags": list(tags),
        "datasets": None if is_local(data.train) else [data.train],
    }
    return f"---\n{yaml.safe_dump({k: v for k, v in facts.items() if v}, sort_keys=False)}---"


def is_local(name_or_path: str | None) -> bool:
    """Whether this cannot be the name of something on the hub."""
    if name_or_path is None or Path(name_or_path).suffix in SUFFIXES:
        return True
    return name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") > 1 or Path(name_or_path).exists()


def shown_model(model: ModelConfig) -> str:
    """A hub name, or the end of a local path."""
    name, file = str(model.name_or_path), f", `{model.gguf_file}`" if model.gguf_file else ""
    return f"`{'/'.join(Path(name).parts[-2:])}`{file}" if is_local(name) else f"`{name}`{file}"


def shown_data(data: DataConfig) -> str:
    """What was trained on, and how its prompts were put."""
    if data.train is None:
        source = "Prompts made on the fly"
    elif is_local(data.train):
        source = f"`{Path(data.train).name}`"
    else:
        subset = f"subset {data.name}, " if data.name else ""
        source = f"`{data.train}`, {subset}split {data.train_split}"
    prompt = mask_secrets(data.system_prompt)
    system = f" System prompt: {json.dumps(prompt, ensure_ascii=False)}." if prompt else ""
    return f"{source}; prompts of at most {data.max_prompt_tokens} tokens.{system}"


def shown_lora(lora: LoraConfig | None, merged: bool = True) -> str:
    """Rank, scale and place of the adapters."""
    if lora is None:
        return "none: all weights were trained"
    targets = lora.target_modules if isinstance(lora.target_modules, str) else ", ".join(lora.target_modules)
    return f"r {lora.r}, alpha {lora.alpha}, {targets}{', merged' if merged else ''}"


def settings(values: Mapping[str, str]) -> str:
    """A table of names and values."""
    return markdown_table(["", ""], [[name, value] for name, value in values.items()])


def bullets(lines: Sequence[str]) -> str:
    """A list; no line of it breaks."""
    return "\n".join(f"- {' '.join(line.split())}" for line in lines)


def tenth(updates: int) -> int:
    """How many updates are a tenth of them, at least one and at most AVERAGED."""
    return min(AVERAGED, max(1, updates // 10))


def first_and_last(file: Path, n: int) -> list[Row]:
    """The first n and the last n rows of a file of JSON lines; in a short one some are both.

    What lies between is not read: the card of a checkpoint costs as much late in a run as early.
    """
    with open(file, "rb") as stream:
        first = list(itertools.islice(stream, n))
        size, tail = stream.seek(0, os.SEEK_END), TAIL_BYTES
        while True:
            stream.seek(max(0, size - tail))
            last = stream.read().splitlines()
            if len(last) > n or tail >= size:
                return [json.loads(line) for line in (*first, *last[-n:])]
            tail *= 2


def mean_of(metrics: Sequence[Row], name: str) -> float:
    """The mean of a metric over the rows that have it; NaN without any."""
    values = [row[name] for row in metrics if name in row]
    return sum(values) / len(values) if values else float("nan")


def progress(metrics: Sequence[Row], k: int) -> str:
    """The first k and the last k updates of PPO side by side."""
    names = [*MEASURED, *(name for name in metrics[-1] if name.startswith("reward/"))]
    rows = [
        [MEASURED.get(name, name), *(f"{mean_of(part, name):z.3f}" for part in (metrics[:k], metrics[-k:]))]
        for name in names
    ]
    one = "update" if k == 1 else f"{k} updates"
    return markdown_table(["mean", f"first {one}", f"last {one}"], rows)


def last_values(metrics: Sequence[Row]) -> str:
    """The metrics of the last step, but for times, which differ from run to run."""
    kept = [name for name in metrics[-1] if name != "step" and not name.startswith("time/")]
    return settings({name: f"{value:.4g}" for name, value in metrics[-1].items() if name in kept})


def generate(data: DataConfig, max_new_tokens: int, temperature: float) -> str:
    """Code that samples a response as the model was trained to give it."""
    sampling = f"do_sample=True, temperature={temperature:g}, max_new_tokens={max_new_tokens}"
    if not (data.as_chat or data.system_prompt or data.chat_template_kwargs):
        return GENERATE.format(prompt=TEXT_PROMPT, sampling=sampling)
    system_prompt, arguments = mask_secrets(data.system_prompt), mask_secrets(data.chat_template_kwargs)
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    messages = json.dumps([*system, {"role": "user", "content": "Your prompt"}])
    more = f", **{arguments!r}" if arguments else ""
    return GENERATE.format(prompt=CHAT_PROMPT.format(messages=messages, more=more), sampling=sampling)


def load_policy_code(model: ModelConfig, generate: str, with_critic: bool) -> str:
    """Code that loads a policy on its base, and samples."""
    file = split_path(str(model.name_or_path), model.gguf_file)[1]
    gguf = f"gguf_file={json.dumps(file)}, " if file else ""
    here = LOAD_POLICY_HERE.format(reads=", which also reads the value head" if with_critic else "")
    if rests_on_adapters(str(model.name_or_path)):
        return (
            f"Its base is adapters itself, which PEFT alone would put these in the place of. {here}\n\n"
            "`rlhf generate --model FOLDER --merge_to NEW_FOLDER` makes a plain model of all of them."
        )
    return LOAD_POLICY.format(dtype=model.dtype, gguf=gguf, generate=generate) + here


@functools.cache  # a card is written with every checkpoint, and the hub is asked
def rests_on_adapters(name_or_path: str) -> bool:
    """Whether a base model is adapters on another one: an earlier policy, or a folder of PEFT's."""
    from rlhf.models.adapters import find_adapters
    from rlhf.models.locate import model_in

    try:
        return find_adapters(str(Path(model_in(name_or_path)).expanduser())) is not None
    except UserError:  # it is gone
        return False


def where_the_base_is(model: ModelConfig) -> str:
    """What to know about a base model that is not on the hub."""
    if not is_local(model.name_or_path):
        return ""
    return (
        f"The base model was a local folder ({shown_model(model)}), and `adapter_config.json` says where it lay. "
        "Elsewhere, put its place there and in `policy.json`.\n\n"
    )
