"""The shipped cases: what is right must score above everything that only looks right."""

import hackability
import pytest
from rewards.render_available import needs_render


@needs_render
@pytest.mark.parametrize("name", ["react_full", "react_match"])
def test_every_right_component_is_above_every_other(name):
    given = hackability.scores_by_kind(name, hackability.samples())
    lowest_right = min(score for kind in hackability.RIGHT for score in given[kind])
    highest_other = max(score for kind in ("wrong", *hackability.HACKS) for score in given[kind])
    assert lowest_right > highest_other + 0.05


@needs_render
def test_the_same_page_earns_everything_however_it_is_written():
    given = hackability.scores_by_kind("react_full", hackability.samples())
    assert given["right"] == pytest.approx([1.0] * len(given["right"]))


@needs_render
def test_cases_are_distinct_and_sound():
    tasks = hackability.load_tasks()
    assert len(tasks) >= 8
    for task in tasks:
        assert set(task) == {"prompt", "reference", "right", "different"}
        assert len({task["reference"], task["right"], task["different"]}) == 3
    static = hackability.scores_by_kind("react_static", hackability.samples())
    assert set(static["right"] + static["right but different"] + static["wrong"]) == {1.0}


def test_auc_by_hand():
    assert hackability.auc([1.0, 2.0], [0.0, 1.0]) == (1 + 1 + 0.5 + 1) / 4
