"""Runs that are continued under other circumstances, or by two processes at once."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from faults.fault import Fault, once
from faults.kills import UPDATE_5, kill_in_update_5
from faults.lab import LAUNCHER
from faults.trial import Trial

CLOCK_BACK = 86_400.0
NUMBERS = {"metrics.jsonl", "samples.jsonl", "policy/adapter_model.safetensors", "policy/value_head.safetensors"}
"""Files in which neither the data nor the model is named."""


def other_config(trial: Trial) -> None:
    kill_in_update_5(trial)
    trial.refused(trial.start(learning_rate=0.02), "learning_rate was 0.01 and is 0.02")
    trial.continue_()


def other_data(trial: Trial) -> None:
    """The file of the data has lost a row."""
    data = trial.folder / "data" / "pairs.jsonl"
    data.parent.mkdir(parents=True)
    shutil.copy(trial.lab.data, data)
    trial.changes["data"] = {"train": str(data)}
    kill_in_update_5(trial)
    rows = data.read_text()
    data.write_text(rows[: rows.rstrip().rindex("\n") + 1])
    trial.refused(trial.start(), "made with 8 prompts, the data now holds 7")
    data.write_text(rows)
    trial.continue_(only=NUMBERS)


def other_processes(trial: Trial) -> None:
    kill_in_update_5(trial)
    trial.launcher = LAUNCHER
    trial.refused(trial.start(), "was saved by 1 processes and this run has 2")
    trial.launcher = []
    trial.continue_()


def other_version(trial: Trial) -> None:
    kill_in_update_5(trial)
    other = {"do": "pretend_version", "package": "torch", "version": "9.9.9"}
    trial.continue_(other, says=f"torch {version('torch')}, now 9.9.9")


def clock_back(trial: Trial) -> None:
    """A day, in the middle of update 3 and again when the run is continued."""
    clock = {"do": "turn_clock_back", "at": "rlhf.ppo.update:ClippedEpochs.gradient", "nth": 5, "seconds": CLOCK_BACK}
    kill_in_update_5(trial, clock)
    trial.continue_(clock | {"nth": 1, "seconds": 2 * CLOCK_BACK})


def two_at_once(trial: Trial) -> None:
    """A second one is started in update 5 of the first, which is held there meanwhile."""

    def start_second(pid: int) -> None:
        wait_until_stopped(pid)
        second = Trial(trial.lab, trial.folder, trial.stage)
        second.refused(second.start(log="second"), "in use by process")
        os.kill(pid, signal.SIGCONT)

    trial.finished(trial.start({"do": "stop_forever", **UPDATE_5}, meanwhile=start_second))
    trial.seen.append("the second one refused in one line")
    trial.equal()


def wait_until_stopped(pid: int) -> None:
    while Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
        time.sleep(0.02)


def tokenizer_without_pad(trial: Trial) -> None:
    """Another token pads, and every number stays the same: masks are explicit."""
    model = trial.folder / "model"
    shutil.copytree(trial.lab.model, model)
    settings = json.loads((model / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    trial.finished(trial.start(model={"name_or_path": str(model)}))
    trial.equal(only=NUMBERS)


def faults() -> list[Fault]:
    """All of this kind."""
    on_continuing = "ppo, on continuing"
    refused, same = "refused in one line; as before, it continues", "the same numbers"
    attacks: list[tuple[str, str, str, Callable[[Trial], None]]] = [
        ("other config", on_continuing, refused, other_config),
        ("a row of the data gone", on_continuing, refused, other_data),
        ("other number of processes", on_continuing, refused, other_processes),
        ("other version of a library", on_continuing, "one line names it; the run goes on", other_version),
        ("clock turned back by a day", "ppo, update, and on continuing", same, clock_back),
        ("tokenizer without a pad token", "ppo, from the beginning", same, tokenizer_without_pad),
        ("two processes on one output folder", "ppo, update",
         "the second one is refused in one line, the first one does not notice", two_at_once),
    ]  # fmt: skip
    return [
        Fault(name=name, where=where, expected=expected, attacks=once(attack))
        for name, where, expected, attack in attacks
    ]
