"""The runs that are disturbed: very small real ones, with what they come to when nobody disturbs them."""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import yaml

from faults.inject import Injection
from faults.outcome import outcome
from faults.process import Command

TEXTS = [
    f"Show a button saying {word}.\nexport default function {word}() {{\n  return <button>{word}</button>;\n}}"
    for word in ("Save", "Send", "Open", "Close", "Start", "Stop", "More", "Less")
]
SIZE: dict[str, Any] = {
    "architecture": "gpt2",
    "hidden_size": 16,
    "layers": 1,
    "heads": 2,
    "context_length": 96,
    "vocab_size": 300,
}
CHECKPOINT = {"save_steps": 2, "save_total_limit": 2}
UPDATES = 6
LAUNCHER = [
    *(sys.executable, "-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/cpu_2.yaml"),
    *("--main_process_port", "0"),
]
ENVIRONMENT: dict[str, str | None] = {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}


class Lab:
    """A folder with data, a model from scratch, and undisturbed runs that are made when first asked for.

    Args:
        root: An empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.data, self.model = self.root / "pairs.jsonl", self.root / "model"
        self.references: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        self.lock = threading.RLock()
        self._write_data()
        self._build_model()
        Command(["--help"], steps=self.root / "steps", log=self.root / "log").run(300)  # the libraries are imported

    def _write_data(self) -> None:
        rows = [dict(zip(("prompt", "completion"), text.split("\n", 1), strict=True)) for text in TEXTS]
        self.data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def _build_model(self) -> None:
        import torch

        from rlhf.config import ScratchModel
        from rlhf.models.load import build_from_scratch

        torch.manual_seed(0)
        model, tokenizer = build_from_scratch(ScratchModel(**SIZE), TEXTS)
        for parameter in model.parameters():  # far from the near-uniform distribution of a fresh model
            parameter.data.mul_(3.0)
        model.save_pretrained(self.model)
        tokenizer.save_pretrained(self.model)

    def config(self, stage: str) -> dict[str, Any]:
        """The settings of a stage, as its YAML file has them."""
        data = {"train": str(self.data)}
        sampling = {"max_new_tokens": 8}
        reward = {"path": "faults.rewards.count_e", "name": "count_e"}
        tracking = {"wandb": "auto", "tensorboard": False}
        ppo = {
            "model": {"name_or_path": str(self.model)}, "data": data, "rewards": [reward], "sampling": sampling,
            "lora": {"r": 2, "alpha": 4}, "num_updates": UPDATES, "batch_size": 8, "num_generations": 2,
            "mini_batch_size": 4, "micro_batch_size": 4, "num_ppo_epochs": 1, "learning_rate": 0.01,
            "max_skipped_steps": 1, "adaptive_kl_target": 0.5, "adaptive_kl_horizon": 40,
            "score_normalization": "standardize",
            "value_warmup": {"explained_variance": 5.0, "max_updates": 1},
            "checkpoint": CHECKPOINT, "inspect": {"prompts": 1, "every": 3}, "tracking": tracking,
        }  # fmt: skip
        sft = {
            "model": {"scratch": SIZE}, "data": data, "num_train_epochs": 4, "batch_size": 4, "micro_batch_size": 2,
            "learning_rate": 0.01, "checkpoint": CHECKPOINT, "tracking": tracking,
        }  # fmt: skip
        pipeline = {
            "sft": sft, "ppo": {key: value for key, value in ppo.items() if key != "model"},
            "evaluation": {"prompts": 4, "num_generations": 2},
        }  # fmt: skip
        return {"ppo": ppo, "sft": sft, "pipeline": pipeline}[stage]

    def command(
        self, stage: str, folder: Path, injections: list[Injection], changes: dict[str, Any], launcher: list[str]
    ) -> Command:
        """`rlhf STAGE` with its output in folder/run, notes and logs beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{stage}.yaml"
        file.write_text(yaml.safe_dump(self.config(stage) | changes | {"output_dir": str(folder / "run")}))
        return Command(
            arguments=[stage, "--config", str(file)],
            injections=injections,
            steps=folder / "steps",
            log=folder / "log",
            environment=ENVIRONMENT,
            launcher=launcher,
        )

    def reference(self, stage: str, launcher: list[str]) -> dict[str, Any]:
        """What the undisturbed run leaves behind."""
        launcher = [] if launcher[-1:] == ["1"] else launcher  # one process is one process
        key = f"{stage}{' on two' if launcher else ''}"
        with self.lock:
            if key not in self.references:
                folder = self.root / "undisturbed" / key
                started = time.monotonic()
                ended = self.command(stage, folder, [], {}, launcher).run(300)
                self.seconds[key] = time.monotonic() - started
                if ended.status != 0:
                    raise RuntimeError(f"the undisturbed run failed:\n{ended.err}")
                self.references[key] = outcome(folder / "run")
        return self.references[key]
