"""Warnings of the watch on the curves: at their update, on the right charts, in the page, its words and the figures."""

import re
from pathlib import Path

from report_runs import ppo_rows, report_of, write_run
from tiny_data import write_jsonl

from rlhf.report import figures
from rlhf.report.charts import frontier, in_words, stage_charts
from rlhf.report.marks import ABOUT, REWARD_HACKING
from rlhf.report.page import page
from rlhf.watch import watch
from rlhf.watch.symptoms import SYMPTOMS


def warned(folder: Path, *found: tuple[int, str], **config: object) -> Path:
    """Three updates, and what the watch found at which."""
    run = write_run(folder, ppo_rows([1.0, 2.0, 3.0], [0.0, 1.0, 4.0]), **config)
    rows = [{"step": step, "name": name, "message": f"update {step}: do something"} for step, name in found]
    write_jsonl(run / "warnings.jsonl", rows)
    return run


def warnings_of(charts: dict[str, list[dict]]) -> dict[str, list[dict]]:
    return {chart["title"]: chart["warnings"] for section in charts.values() for chart in section if chart["warnings"]}


def test_every_warning_has_its_curves():
    assert set(ABOUT) == set(SYMPTOMS)
    for name, metrics in ABOUT.items():
        assert set(metrics) <= set(SYMPTOMS[name].needs)
    assert REWARD_HACKING == watch.REWARD_HACKING


def test_warnings_are_marked_on_the_curves_that_they_are_about(tmp_path):
    groups = report_of(warned(tmp_path / "run", (2, "kl_blow_up"), (3, "reward_hacking"), watch={"gold": "gold"}))
    blow_up, hacking = (
        {"x": 2, "label": "KL blow up", "line": "run"},
        {"x": 3, "label": "reward hacking", "line": "run"},
    )
    charts = stage_charts(groups, "ppo")
    assert warnings_of(charts) == {"Reward": [hacking], "KL to the reference": [blow_up]}
    assert [chart["warnings"] for chart in frontier(groups)] == [[blow_up, hacking], [blow_up, hacking]]
    [_, kl] = charts["Reward and KL"][:2]
    words = in_words(kl)
    assert words.startswith("KL to the reference")
    assert "objective/kl from 0 to 4" in words
    assert "update 2: KL blow up" in words
    html = page(groups)
    links = re.findall(r"<strong>KL blow up</strong>.*?Marked on: (.*?)</p>", html)
    assert re.findall(r'href="#(chart-\d+)">([^<]+)<', links[0]) == [
        ("chart-1", "KL to the reference"), ("chart-2", "Score against distance"),
        ("chart-3", "Gold reward against distance: gold"),
    ]  # fmt: skip
    assert html.count('id="chart-1"') == 1
    assert "<p>Do something</p>" in html


def test_a_mark_says_which_run_it_is_of(tmp_path):
    runs = [warned(tmp_path / f"{kl}", (2, "kl_blow_up"), kl_coef=kl, seed=0) for kl in (0.1, 0.2)]
    runs.append(warned(tmp_path / "other", (3, "kl_blow_up"), kl_coef=0.2, seed=1))
    marks = warnings_of(stage_charts(report_of(*runs), "ppo"))["KL to the reference"]
    assert [(mark["x"], mark["label"]) for mark in marks] == [
        (2, "KL blow up (0.1)"), (2, "KL blow up (group 2, seed 0)"), (3, "KL blow up (group 2, seed 1)"),
    ]  # fmt: skip


def test_marks_in_figures(tmp_path):
    import matplotlib.pyplot as plt

    groups = report_of(warned(tmp_path / "run", (2, "kl_blow_up")))
    [_, kl, *_], [plane] = stage_charts(groups, "ppo")["Reward and KL"], frontier(groups)
    for chart, expected in ((kl, [2.0, 1.0]), (plane, [1.0, 2.0])):  # on top of update 2; at (sqrt(1), score 2)
        figure, axes = plt.subplots()
        figures._draw(chart, axes)
        [triangles] = axes.collections
        assert triangles.get_offsets().tolist() == [expected]
        assert "warning" in [text.get_text() for text in axes.get_legend().get_texts()]
        plt.close(figure)
