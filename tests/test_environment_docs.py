"""docs/how-to/multi-turn.md and configs/environments: the example, the shipped configs, and the command of the page."""

import json
import random
from pathlib import Path

import guess_number
import pytest
from documents import blocks

from rlhf.cli import main
from rlhf.config import EnvironmentSpec, PPOConfig
from rlhf.config.command_line import parse
from rlhf.environments.episodes import on_its_own, seeded
from rlhf.environments.guess_number import GuessNumber
from rlhf.environments.stepping import Environments
from rlhf.runs.files import read_jsonl

PAGE = "docs/how-to/multi-turn.md"


def test_the_example_is_an_environment(tmp_path, monkeypatch):
    """The block of the page as a module in the folder of a user, and one episode of it."""
    [example] = blocks("python", page=PAGE)
    assert len(example.text.splitlines()) <= 22
    (tmp_path / "environment_of_the_docs.py").write_text(example.text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    played = Environments(EnvironmentSpec(name="environment_of_the_docs.Backwards", args={"words": ["cat"]}))
    [row] = seeded([on_its_own(played.spec)], "docs")
    [(environment, messages)] = played.open([row.example])
    assert messages == [{"role": "user", "content": "Spell cat backwards."}]
    [wrong] = played.step([(environment, "tic")], [0], 1)
    assert (wrong.observation[0]["content"], wrong.reward, wrong.done) == ("2 letters are in place.", -0.1, False)
    [right] = played.step([(environment, " tac\n")], [0], 2)
    assert (right.reward, right.done, right.metrics) == (1.0, True, {"solved": 1.0})


def test_the_data_of_guess_number_is_what_its_builder_writes():
    generator = random.Random(0)
    games = [guess_number.game(generator) for _ in range(guess_number.GAMES)]
    assert [row["messages"] for row in read_jsonl(guess_number.FILE)] == games


@pytest.mark.long
def test_guess_number_is_learned(tmp_path):
    """From a careless player to nine tenths of what nobody can exceed, on held-out games."""
    run = ["--seed", "1", "--output_dir", str(tmp_path / "run")]
    main(["pipeline", "configs/environments/guess_number.yaml", *run])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    best = GuessNumber(largest=7, guesses=4, cost=0.2).best_return
    assert summary["sft"]["guess_number"] < 0.5 * best
    assert summary["ppo"]["guess_number"] > 0.9 * best


@pytest.mark.long
def test_the_shipped_config(tmp_path):
    """The pipeline of guess_number, cut short: SFT, two updates, and an evaluation before and after."""
    main([
        "pipeline", "configs/environments/guess_number.yaml", "--seed", "0", "--output_dir", str(tmp_path / "run"),
        "--sft.num_train_epochs", "0.1", "--ppo.num_updates", "2", "--ppo.batch_size", "16",
        "--ppo.mini_batch_size", "16", "--evaluation.prompts", "8",
    ])  # fmt: skip
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert set(summary) == {"sft", "ppo"}
    assert -0.8 <= summary["ppo"]["guess_number"] <= 1


@pytest.mark.parametrize("file", sorted(Path("configs/environments").glob("react_repair*ppo.yaml")), ids=str)
def test_configs_are_accepted(file):
    config = parse(PPOConfig, ["--config", str(file)])
    assert config.environment is not None
    Environments(config.environment)
