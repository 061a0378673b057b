"""Components mended over several turns: what is said of each version, and what it earns."""

import json

import pytest
from rewards.render_available import needs_render

from rlhf.config import EnvironmentSpec
from rlhf.data.parsing import Example
from rlhf.environments.react_repair import ReactRepair
from rlhf.environments.stepping import Environments
from rlhf.rewards.react.static import ReactStatic

GOOD = 'export default function Save() {\n  return <button className="save">Save</button>;\n}'
BROKEN = GOOD.replace("</button>", "")
UNDEFINED = GOOD.replace(">Save<", ">{label}<")
ROW = Example(({"role": "user", "content": "Show a button."},), GOOD, {"reference": GOOD, "family": "button"}, "test")


def steps_of(environment, *versions):
    environment.reset("Show a button.", reference=GOOD, family="button")
    return [environment.judge(version) for version in versions]


def score(code):
    return ReactStatic()(["x"], [code])[0]


def test_the_parsers_message_is_the_next_turn():
    broken, mended = steps_of(ReactRepair(reward="react_static"), f"```tsx\n{BROKEN}\n```", GOOD)
    assert broken.observation.startswith("Your component does not parse: unexpected ")
    assert "in line 4" in broken.observation  # the fence is line 1; in the text of the open tag no `}` may stand
    assert broken.observation.endswith("Answer with the whole component again, mended.")
    assert not broken.done
    assert broken.metrics == {"solved": 0.0, "solved_at_once": 0.0}
    assert mended.done
    assert mended.metrics == {"solved": 1.0, "solved_at_once": 0.0}


def test_an_episode_earns_its_last_version_less_the_cost_of_its_turns():
    steps = steps_of(ReactRepair(reward="react_static", cost=0.1), BROKEN, BROKEN + "}", BROKEN)
    assert [step.done for step in steps] == [False, False, True]
    assert steps[0].reward == score(BROKEN)
    assert sum(step.reward for step in steps) == pytest.approx(score(BROKEN) - 0.2)
    [at_once] = steps_of(ReactRepair(reward="react_static", cost=0.1), GOOD)
    assert at_once.reward == score(GOOD)
    assert at_once.metrics["solved_at_once"] == 1.0


def test_worse_than_before_costs_what_the_one_before_earned():
    environment = ReactRepair(reward="react_static", cost=0.0)
    first, second = steps_of(environment, UNDEFINED.replace("</button>", ""), "no code at all <")
    assert second.reward == pytest.approx(score("no code at all <") - first.reward)


@needs_render
def test_the_renderers_message_is_the_next_turn():
    environment = ReactRepair(reward="react_full")
    undefined, mended = steps_of(environment, UNDEFINED, GOOD)
    assert undefined.observation.startswith("Your component does not render: ")
    assert "label" in undefined.observation
    assert mended.done
    assert undefined.reward + mended.reward == pytest.approx(
        0.15 * 1 + 0.15 * (0.6 + 0.1) + 0.7 * 1 - 0.1
    )  # a tag; one more turn


def test_a_batch_is_judged_side_by_side():
    played = Environments(EnvironmentSpec(name="react_repair", args={"reward": "react_parses"}))
    opened = played.open([ROW] * 3)
    assert [messages for _, messages in opened] == [list(ROW.turns)] * 3
    steps = played.step(
        [(each, code) for (each, _), code in zip(opened, [GOOD, BROKEN, GOOD], strict=True)], [0, 1, 2], 1
    )
    assert [step.done for step in steps] == [True, False, True]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"reward": "length"}, "reward is 'length'; it must be one of react_full"),
        ({"reward": "my.module.reward"}, "it must be one of"),
        ({"turns": 0}, "turns 0 must be at least 1"),
        ({"cost": -1}, "cost -1 in"),
    ],
)
def test_options_are_checked(args, message):
    """A reward of somebody else's would be code that the consent rules do not see."""
    with pytest.raises(ValueError, match=message):
        ReactRepair(**args)


def test_rows_of_the_data_set_are_solved_by_their_completions():
    with open("data/react/eval.jsonl", encoding="utf-8") as file:
        rows = [json.loads(next(file)) for _ in range(5)]
    for row in rows:
        environment = ReactRepair(reward="react_static")
        environment.reset(row["prompt"], reference=row["completion"])
        assert environment.judge(row["completion"]).done
