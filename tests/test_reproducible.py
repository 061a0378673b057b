"""The same config and seed give the same numbers: bit for bit in another process, nearly those of the golden curves."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import learning_curves
import pytest
import torch
from learning_curves import GOLDEN, differences

from rlhf.toy import bandit

ROOT = Path(__file__).resolve().parent.parent
HOW_TO = (
    "if they were meant to change, run python tests/reliability/learning_curves.py and say in the commit why they did"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> list[str]:
    """The curves, made twice: by two processes of their own, which order their sets and dictionaries differently."""
    folder = tmp_path_factory.mktemp("curves")
    files = [folder / "first.json", folder / "second.json"]
    script = [sys.executable, str(ROOT / "tests" / "reliability" / "learning_curves.py"), "--output"]
    running = [
        subprocess.Popen(
            [*script, str(file)],
            env=os.environ | {"PYTHONHASHSEED": str(number), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, file in enumerate(files)
    ]
    for process in running:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    return [file.read_text() for file in files]


@pytest.mark.slow
def test_two_processes_compute_the_same_bits(made):
    assert made[0] == made[1]


@pytest.mark.slow
def test_the_curves_are_the_golden_ones(made):
    changed = differences(json.loads(GOLDEN.read_text()), json.loads(made[0]))
    assert not changed, "\n".join([*changed, HOW_TO])


def test_every_algorithm_is_in_the_golden_file_and_moves():
    golden = json.loads(GOLDEN.read_text())
    assert list(golden) == list(learning_curves.MAKERS)
    assert all(
        len(set(curve)) > 1 for curves in golden.values() for name, curve in curves.items() if "length" not in name
    )


def test_what_counts_as_a_difference():
    golden = {"PPO": {"kl": [0.0, 2.0, 3.0], "score": [1.0, 1.0, 1.0]}}
    for change, lines in (
        (2.0 * (1 + 5e-5), []),
        (2.0 * (1 + 2e-4), ["PPO: kl of step 2 was 2.0 and is 2.0004"]),
        (float("nan"), ["PPO: kl of step 2 was 2.0 and is nan"]),
    ):
        now = copy.deepcopy(golden)
        now["PPO"]["kl"][1] = change
        assert differences(golden, now) == lines
    assert differences(golden, {"PPO": {"kl": [0.0, 2.0], "score": [1.0, 1.0, 1.0]}}) == [
        "PPO: kl had 3 steps and has 2"
    ]
    assert differences(golden, {"PPO": {"kl": [0.0, 2.0, 3.0]}}) == ["the curves have other names"]


def test_a_small_mistake_in_the_maths_is_noticed(tmp_path, monkeypatch):
    """The KL penalty is one per cent too large."""
    name = "toy bandit"
    golden = {name: json.loads(GOLDEN.read_text())[name]}
    torch.set_num_threads(1)
    assert not differences(golden, {name: learning_curves.MAKERS[name](tmp_path)})
    shaped = bandit.kl_shaped_rewards
    monkeypatch.setattr(bandit, "kl_shaped_rewards", lambda scores, kl, *rest: shaped(scores, 1.01 * kl, *rest))
    assert differences(golden, {name: learning_curves.MAKERS[name](tmp_path)})
