"""Run folders for the tests of the report: a real one made by the PPO stage, and others made from its files."""

import json
import math
import shutil
from pathlib import Path

import yaml
from safetensors.numpy import load_file, save_file
from tiny_data import write_jsonl

from rlhf.cli import main
from rlhf.report.compare import Group, group_runs
from rlhf.report.load import read_run

HOSTILE = [
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 2'>",
    "</textarea></style><svg onload=window.hacked=3>",
    "\"><iframe srcdoc='<script>parent.hacked=4</script>'></iframe>",
    "<!-- ]]> --> &lt;b&gt; &amp; {{7*7}} ${window.hacked=5}",
    "a\u202ertl override\u202c \u2066isolate\u2069 \u200bzero width\ufeff \u2028 line \x00 nul \x1b[31m",
    "\ud800 half a pair, \U000e0041 a tag, Z\u0335\u0321\u0322a\u0341\u0342l",
    "javascript:window.hacked=6",
    "مرحبا 👩‍👩‍👧‍👦 नमस्ते",
]


def ppo_run(folder: Path, model: Path) -> Path:
    """A run of the PPO stage on a very small model and three prompts, which are watched, with a gold reward."""
    prompts = [{"prompt": text} for text in ("Save it.", "Show a link.", "Hello")]
    config = {
        "output_dir": str(folder),
        "model": {"name_or_path": str(model)},
        "data": {"train": write_jsonl(folder.with_name("prompts.jsonl"), prompts)},
        "rewards": [
            {"path": "length", "args": {"maximum": 10, "margin": 200}},
            {"path": "repetition", "name": "gold", "weight": 0},
        ],
        "lora": {"r": 2, "alpha": 4},
        "sampling": {"max_new_tokens": 32},
        "num_updates": 4, "batch_size": 8, "mini_batch_size": 8, "micro_batch_size": 8, "num_ppo_epochs": 2,
        "learning_rate": 0.01,
        "adaptive_kl_target": 0.5,
        "watch": {"gold": "gold"},
        "inspect": {"prompts": 3, "every": 2},
        "tracking": {"wandb": "disabled", "tensorboard": False},
    }  # fmt: skip
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(config))
    main(["ppo", "--config", str(file)])
    return folder


def rows_of(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def hostile_copy(run: Path, folder: Path) -> Path:
    """The same run if model, data, rewards and config had said the worst they can."""
    shutil.copytree(run, folder)
    text = "\n".join(HOSTILE)
    for file in folder.glob("rollouts/*/rows.jsonl"):
        rows = rows_of(file)
        for row in rows:
            n_tokens = len(row["tokens"])
            row |= {"prompt": f"prompt {text}", "response": f"response {file.parent.name} {text}", "explanation": text}
            row["tokens"] = [HOSTILE[i % len(HOSTILE)] for i in range(n_tokens)]
            row["rewards"] = {HOSTILE[1]: 0.5}
        write_jsonl(file, rows)
    metrics = rows_of(folder / "metrics.jsonl")
    write_jsonl(folder / "metrics.jsonl", [row | {f"reward/{HOSTILE[0]}": 1.0, HOSTILE[1]: 2.0} for row in metrics])
    warning = {"step": 2, "name": HOSTILE[2], "message": text}
    write_jsonl(folder / "warnings.jsonl", [warning])
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {HOSTILE[0]: HOSTILE[1], "api_key": "planted-secret"}))
    return folder


def large_run(run: Path, folder: Path, responses: int, tokens: int, updates: int = 500, stored: int = 64) -> Path:
    """A long run made from the rows and tensors of a short one: numbers with as many digits, responses full length."""
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "rollouts")
    rows = rows_of(run / "metrics.jsonl")
    grown_rows = []
    for step in range(updates):
        wave = math.sin(step) / 7
        row = {name: value + wave * (1 + abs(value)) for name, value in rows[step % len(rows)].items()}
        grown_rows.append(row | {"step": step + 1})
    write_jsonl(folder / "metrics.jsonl", grown_rows)
    source = max((run / "rollouts").iterdir())
    small, [said, *_] = load_file(source / "rollout.safetensors"), rows_of(source / "rows.jsonl")
    for number in range(stored):
        place = folder / "rollouts" / f"{1 + round(number * (updates - 1) / (stored - 1)):06d}"
        place.mkdir(parents=True)
        shape = (responses, tokens)
        tensors = {name: grown(values, shape, number) for name, values in small.items()}
        tensors["response_mask"][:] = True
        save_file(tensors, place / "rollout.safetensors")
        words = [said["tokens"][i % len(said["tokens"])] for i in range(tokens)]
        write_jsonl(place / "rows.jsonl", [said | {"prompt": f"prompt {i}", "tokens": words} for i in range(responses)])
    return folder


def grown(values, shape, number):
    """The same numbers over and over until the shape is full, shifted so that no two rollouts are equal."""
    import numpy as np

    size = shape[: values.ndim]
    repeated = np.resize(np.roll(values.ravel(), number), size)
    return repeated if values.dtype == bool else (repeated * (1 + number / 500)).astype(values.dtype)


def write_run(folder: Path, metrics: list[dict], **config: object) -> Path:
    """The files of a PPO run that matter to the report."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    write_jsonl(folder / "metrics.jsonl", metrics)
    return folder


def ppo_rows(scores: list[float], kls: list[float]) -> list[dict]:
    return [
        {"step": step, "objective/score": score, "objective/kl": kl, "reward/gold": -score}
        for step, (score, kl) in enumerate(zip(scores, kls, strict=True), start=1)
    ]


def report_of(*runs: Path) -> list[Group]:
    return group_runs([read_run(run) for run in runs])
