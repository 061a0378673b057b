"""`rlhf play`: a person's turns, a model's turns, and that neither can command the terminal."""

import io

import pytest
from tiny_data import write_jsonl

from rlhf.cli import main
from rlhf.environments.guess_number import GuessNumber
from rlhf.stages.play import read_turn


@pytest.fixture
def typed(monkeypatch):
    """Puts lines where a person would type them."""
    return lambda *lines: monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def number_of(seed: int) -> int:
    """What the game of `rlhf play --seed` hides: tried out in order, as a player without a plan would."""
    from rlhf.config import EnvironmentSpec
    from rlhf.environments.episodes import on_its_own, seeded_example

    example = seeded_example(on_its_own(EnvironmentSpec(name="guess_number")).example, f"play {seed}", 0)
    game = GuessNumber()
    game.reset(seed=example.columns["seed"])
    return game.number


def test_a_person_plays(capsys, typed):
    number = number_of(3)
    wrong = 8 if number < 8 else 1
    typed(wrong, number)
    main(["play", "--environment", "guess_number", "--seed", "3"])
    said = capsys.readouterr().out.splitlines()
    assert said[1:] == ["user> guess 1 to 7", "you>   -0.2", "user> lower", "you>   +1", "user> right",
                        "--- over: 0.8 in all, found 1", ""]  # fmt: skip


def test_code_of_several_lines_is_a_turn(capsys, typed):
    typed("```tsx", "export default function Save() {", "  return <button>Save</button>", "", "```", "(")
    main(["play", "--environment", "{name: react_repair, args: {reward: react_static}}"])
    said = capsys.readouterr().out
    assert "user> Your component does not parse: " in said
    assert "in all" not in said  # ended by Ctrl-D after the second turn
    typed("one", "two")
    assert [read_turn(), read_turn(), read_turn()] == ["one", "two", None]


def test_a_model_plays(capsys, tiny_models, tmp_path):
    data = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "Hello \x1b[31m red"}])
    main([
        "play", "--environment", "{name: talkers.Echo, args: {turns: 2}}", "--model", str(tiny_models["gpt2"]),
        "--data", data, "--sampling.max_new_tokens", "8", "--episodes", "2",
    ])  # fmt: skip
    said = capsys.readouterr().out
    assert said.count("user> Hello ") == 2
    assert "\x1b" not in said
    assert said.count("assistant> ") >= 2
    assert said.count(" in all, heard ") == 2


def test_what_is_missing_is_said(capsys):
    for arguments, message in (
        (["--environment", "talkers.Echo"], "needs prompt; the data has the columns: seed"),
        ([], "environment.name is not set"),
        (["--environment", "guess_number", "--episodes", "0"], "episodes is 0; it must be greater than 0"),
    ):
        with pytest.raises(SystemExit):
            main(["play", *arguments])
        assert message in capsys.readouterr().err
