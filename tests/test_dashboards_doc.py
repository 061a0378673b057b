"""docs/guide/live-metrics.md names the metrics that a run logs, no more and no less."""

import re
from pathlib import Path

from tiny_runs import make_trainer

EXPANDED = {"length_std": "response/length_std", "reward/NAME": "reward/count_e"}
PHASES = ("reference", "reward", "evaluation", "exchange", "update")


def test_every_metric_has_a_panel_in_the_docs(tiny_models, pairs):
    text = Path("docs/guide/live-metrics.md").read_text(encoding="utf-8")
    _, rows = text.split("\n| panel |", 1)
    cells = [line.split("|")[1] for line in rows.split("\n\n")[0].splitlines()[2:]]
    named = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    named = [f"time/{name}" if name in PHASES else EXPANDED.get(name, name) for name in named]
    _, _, metrics = make_trainer(tiny_models, pairs, importance_correction="token").update()
    assert sorted(named) == sorted(metrics)
