"""docs/reference/metrics.md names the metrics that a run logs, no more and no less."""

import re

import pytest
from documents import text_of
from tiny_runs import make_trainer

from rlhf.evaluation import measure
from rlhf.stages import reward_model, sft


def documented(stage: str) -> list[str]:
    """The names in the first column of the table of a stage."""
    section = text_of("docs/reference/metrics.md").split(f"\n## rlhf {stage}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)


def test_those_of_ppo(tiny_models, pairs):
    _, _, metrics = make_trainer(tiny_models, pairs, importance_correction="token").update()
    elsewhere = ("reward_metric/", "sampling/staleness")  # with rewards that log, and with batches that are not new
    logged = [name for name in documented("ppo") if not name.startswith(elsewhere)]
    named = ["reward/count_e" if name == "reward/NAME" else name for name in logged]
    assert sorted(named) == sorted(metrics)


@pytest.mark.parametrize(
    ("stage", "names"),
    [
        ("sft", sft.METRICS.values()),
        ("reward", reward_model.METRICS.values()),
        ("evaluate", measure.NUMBERS),
    ],
)
def test_those_of_the_other_stages(stage, names):
    assert sorted(documented(stage)) == sorted(names)
