"""Runs that are continued under other circumstances, or by two processes at once."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

from faults.fault import Fault, once
from faults.kills import IN_UPDATE_5
from faults.lab import LAUNCHER
from faults.trial import Trial

CLOCK_BACK = 86_400.0
NUMBERS = {"metrics.jsonl", "samples.jsonl", "policy/adapter_model.safetensors", "policy/value_head.safetensors"}
"""Files in which neither the data nor the model is named."""


def kill(trial: Trial) -> None:
    trial.killed(trial.start(IN_UPDATE_5 | {"number": signal.SIGKILL}), signal.SIGKILL)


def other_config(trial: Trial) -> None:
    kill(trial)
    trial.refused(trial.start(learning_rate=0.02), "learning_rate was 0.01 and is 0.02")
    trial.continue_()


def other_data(trial: Trial) -> None:
    """The file of the data has lost a row."""
    data = trial.folder / "data" / "pairs.jsonl"
    data.parent.mkdir(parents=True)
    shutil.copy(trial.lab.data, data)
    trial.changes["data"] = {"train": str(data)}
    kill(trial)
    rows = data.read_text()
    data.write_text(rows[: rows.rstrip().rindex("\n") + 1])
    trial.refused(trial.start(), "made with 8 prompts, the data now holds 7")
    data.write_text(rows)
    trial.continue_(only=NUMBERS)


def other_processes(trial: Trial) -> None:
    kill(trial)
    trial.launcher = LAUNCHER
    trial.refused(trial.start(), "was saved by 1 processes and this run has 2")
    trial.launcher = []
    trial.continue_()


def other_version(trial: Trial) -> None:
    kill(trial)
    ended = trial.continue_({"do": "pretend_version", "package": "torch", "version": "9.9.9"})
    trial.require("torch" in ended.err and "9.9.9" in ended.err, "the other version is not named", ended)


def clock_back(trial: Trial) -> None:
    """A day, in the middle of update 3 and again when the run is continued."""
    clock = {"do": "turn_clock_back", "at": "rlhf.optimization:ClippedEpochs.gradient", "nth": 5, "seconds": CLOCK_BACK}
    trial.killed(trial.start(clock, IN_UPDATE_5 | {"number": signal.SIGKILL}), signal.SIGKILL)
    trial.continue_(clock | {"nth": 1, "seconds": 2 * CLOCK_BACK})


def two_at_once(trial: Trial) -> None:
    """A second one is started in update 5 of the first, which is held there meanwhile."""

    def start_second(pid: int) -> None:
        wait_until_stopped(pid)
        second = Trial(trial.lab, trial.folder, trial.stage)
        second.refused(second.start(log="second"), "in use by process")
        os.kill(pid, signal.SIGCONT)

    trial.finished(trial.start(IN_UPDATE_5 | {"do": "stop_forever"}, meanwhile=start_second))
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
    refused = "refused in one line; as before, it continues"
    return [
        Fault(name="other config", where="ppo, on continuing", expected=refused, attacks=once(other_config)),
        Fault(name="a row of the data gone", where="ppo, on continuing", expected=refused, attacks=once(other_data)),
        Fault(
            name="other number of processes",
            where="ppo, on continuing",
            expected=refused,
            attacks=once(other_processes),
        ),
        Fault(
            name="other version of a library",
            where="ppo, on continuing",
            expected="one line names it; the run goes on",
            attacks=once(other_version),
        ),
        Fault(
            name="clock turned back by a day",
            where="ppo, update, and on continuing",
            expected="the same numbers",
            attacks=once(clock_back),
        ),
        Fault(
            name="tokenizer without a pad token",
            where="ppo, from the beginning",
            expected="the same numbers",
            attacks=once(tokenizer_without_pad),
        ),
        Fault(
            name="two processes on one output folder",
            where="ppo, update",
            expected="the second one is refused in one line, the first one does not notice",
            attacks=once(two_at_once),
        ),
    ]
