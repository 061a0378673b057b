"""Environments: how they are named, called and checked."""

import time

import pytest

from rlhf.cli import main
from rlhf.config import EnvironmentSpec
from rlhf.data.parsing import Example
from rlhf.environments import Step
from rlhf.environments.guess_number import GuessNumber
from rlhf.environments.loading import load_environment
from rlhf.environments.stepping import Environments
from rlhf.errors import EpisodeError, UserError
from rlhf.rewards.calling import TimeLimitError, call_each

ROW = Example(({"role": "user", "content": "Say something."},), None, {"seed": 7, "reference": None}, "test")


def environments(name, timeout=None, **args) -> Environments:
    return Environments(EnvironmentSpec(name=f"talkers.{name}", args=args, timeout=timeout))


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("guess_numbr", {}, "unknown environment 'guess_numbr': did you mean 'guess_number'"),
        ("rlhf.environments.nothing.Nobody", {}, "unknown environment"),
        ("no_such_module.Environment", {}, "environment 'no_such_module.Environment': cannot import 'no_such_module'"),
        ("talkers.Eco", {}, "module 'talkers' has no 'Eco'; did you mean 'Echo'"),
        ("talkers.NOT_CALLABLE", {}, "is a int; it must be a class"),
        ("talkers.NoStep", {}, "environment 'talkers.NoStep' has no method step"),
        ("talkers.Echo", {"turn": 2}, "args has no 'turn'; did you mean 'turns'"),
        ("guess_number", {"cost": 1}, "environment 'guess_number': largest 7 and guesses 4 must be at least 1"),
    ],
)
def test_what_cannot_be_loaded_is_named(name, args, message):
    with pytest.raises(UserError) as error:
        load_environment(EnvironmentSpec(name=name, args=args))
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["Echo", "AsyncEcho"])
def test_plain_and_async_environments_are_the_same(name):
    played = environments(name)
    [(first, messages), (second, _)] = played.open([ROW, ROW])
    assert messages == list(ROW.turns)
    assert first.seed == 7
    assert first is not second
    steps = played.step([(first, "a"), (second, "bc")], [0, 1], 1)
    assert [step.reward for step in steps] == [1.0, 1.0]
    assert steps[1].observation == [{"role": "user", "content": "You said 2 characters."}]
    assert (first.heard, second.heard) == (["a"], ["bc"])


FAULTS = {
    "raises": "raised ZeroDivisionError: division by zero",
    "hangs": "took longer than 0.5 s",
    "nonsense": "returned a tuple instead of a rlhf.environments.Step",
    "nothing": "returned a NoneType instead of a rlhf.environments.Step",
    "nan": "returned the reward as nan; it must be a finite number",
    "text as reward": "returned the reward as 'much'; it must be a finite number",
    "no observation": "gave observations that are empty or end with the assistant",
    "assistant": "gave observations that are empty or end with the assistant",
    "no role": "gave no messages: observations: each message must have a role and a string as content",
    "done as text": "returned done 'no'; it must be True or False",
    "metrics": "returned metrics 3; they must be numbers by name",
    "metric": "returned metric 'x' as None; it must be a finite number",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_names_environment_episode_and_turn(fault):
    played = environments("Faulty", timeout=0.5 if fault == "hangs" else None, fault=fault)
    [(environment, _)] = played.open([ROW])
    played.step([(environment, "fine")], [5], 1)
    with pytest.raises(EpisodeError) as error:
        played.step([(environment, "go\non")], [5], 2)
    said = f"environment 'talkers.Faulty' {FAULTS[fault]}"
    assert str(error.value).startswith(said)
    assert str(error.value).endswith("(episode 5, turn 2: the model said 'go\\non')")


def test_a_coroutine_that_hangs_is_given_up_and_the_others_are_not_waited_for_in_turn():
    played = environments("HangsAsync", timeout=0.3)
    opened = played.open([ROW] * 4)
    started = time.monotonic()
    with pytest.raises(EpisodeError, match=r"took longer than 0.3 s \(episode 0, turn 1"):
        played.step([(environment, "x") for environment, _ in opened], [0, 1, 2, 3], 1)
    assert time.monotonic() - started < 10  # not the thirty seconds that one of them would take


def test_what_the_row_lacks_is_named():
    on_its_own = Example("", None, {"seed": 1}, "nowhere")
    with pytest.raises(EpisodeError, match=r"'talkers.Echo' needs prompt; the data has the columns: seed \(episode 0"):
        environments("Echo").open([on_its_own])


def test_calls_give_what_they_raise_in_their_order():
    async def later(x):
        return x

    def fails(x):
        raise KeyError(x)

    def sleeps(x):
        time.sleep(20)

    found = call_each([(later, {"x": 1}), (fails, {"x": 2}), (later, {"x": 3})])
    assert (found[0], repr(found[1]), found[2]) == (1, "KeyError(2)", 3)
    [late] = call_each([(sleeps, {"x": 1})], seconds=0.2)
    assert isinstance(late, TimeLimitError)


def test_a_config_in_a_foreign_run_brings_no_environment(tmp_path, capsys):
    """The same consent as for rewards."""
    (tmp_path / "metrics.jsonl").write_text("")
    for environment, why in (("evil.Environment", "would run code"), ("{name: react_repair, args: {url: x}}", "send")):
        (tmp_path / "config.yaml").write_text(f"model: x\ndata: x\nenvironment: {environment}\n")
        with pytest.raises(SystemExit):
            main(["ppo", str(tmp_path / "config.yaml")])
        said = capsys.readouterr().err
        assert "asks for the environment" in said
        assert why in said


def test_guess_number_answers_and_pays():
    game = GuessNumber(largest=7, guesses=3, cost=0.25)
    assert game.reset(seed=3) == "guess 1 to 7"
    number = game.number
    far = number + 1 if number < 7 else number - 1
    assert game.step(f"I say {far}!") == Step("lower" if far > number else "higher", -0.25, False, {"found": 0.0})
    assert game.step("what?").observation == "say a number"
    assert game.step(f"{number}") == Step("right", 1.0, True, {"found": 1.0})
    drawn = set()
    for seed in range(99):
        game.reset(seed=seed)
        drawn.add(game.number)
    assert drawn == set(range(1, 8))


def average_of(strategy, largest, guesses, cost) -> float:
    """The mean return of guesses that a strategy makes of what is still possible."""
    total = 0.0
    for number in range(1, largest + 1):
        low, high = 1, largest
        for _ in range(guesses):
            guess = strategy(low, high)
            total += 1.0 if guess == number else -cost
            if guess == number:
                break
            low, high = (guess + 1, high) if guess < number else (low, guess - 1)
    return total / largest


@pytest.mark.parametrize(("largest", "guesses"), [(1, 1), (3, 2), (7, 3), (7, 4), (10, 4)])
def test_bisection_earns_the_best_return(largest, guesses):
    best = GuessNumber(largest=largest, guesses=guesses, cost=0.2).best_return
    assert best == pytest.approx(average_of(lambda low, high: (low + high) // 2, largest, guesses, 0.2))
    assert largest < 3 or best > average_of(lambda low, high: low, largest, guesses, 0.2)


def test_no_strategy_beats_the_best_return():
    """Every strategy on five numbers and two guesses: a first guess, and one for each answer."""

    def earned_by(first, below, above):
        plan = {(1, 5): first, (1, first - 1): below, (first + 1, 5): above}
        return average_of(lambda low, high: plan.get((low, high), 0), 5, 2, 0.2)

    earned = [earned_by(a, b, c) for a in range(1, 6) for b in range(1, 6) for c in range(1, 6)]
    assert max(earned) == pytest.approx(GuessNumber(largest=5, guesses=2, cost=0.2).best_return)
