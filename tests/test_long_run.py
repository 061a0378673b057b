"""reliability/long_run.py in small: a run that is struck by faults, and what counts as growth."""

import dataclasses

import pytest
from endurance.faults import KINDS, Fault, plan
from endurance.gauge import Reading, parsed
from endurance.growth import growth
from endurance.lives import endure, live, outcome, repeated
from endurance.task import CHECKPOINT_EVERY, prepare

STEADY = Reading(
    update=1, seconds=0.05, cpu_seconds=0.04, cpu_unit=0.001, memory=500_000_000, handles=7, threads=4,
    checkpoint_bytes=150_000, other_bytes=4_000,
)  # fmt: skip


@pytest.mark.long
def test_struck_by_a_fault_it_ends_where_it_ends_alone(tmp_path):
    updates = 27
    faults = [Fault(kind="bit flipped", update=24, moment=0.5, draw=1)]
    prepare(tmp_path)
    alone = live(tmp_path, "alone", updates)
    lives = endure(tmp_path, "struck", updates, faults, update_seconds=0.05)
    assert [reading.update for reading in alone.readings] == [*range(1, updates + 1)]
    assert [life.fault for life in lives] == [*faults, None]
    assert all(again <= allowed for _, again, allowed in repeated(lives))
    assert repeated(lives)[0][1] > CHECKPOINT_EVERY  # the newest checkpoint was not taken: its bit is flipped
    assert outcome(tmp_path / "struck") == outcome(tmp_path / "alone")
    assert len(outcome(tmp_path / "alone")["metrics"]) == updates


def test_every_window_has_a_fault_of_its_own():
    faults = plan(updates=2000, every=50, seed=0)
    assert [(fault.update - 1) // 50 for fault in faults] == [*range(40)]
    assert all((fault.update - 1) % 50 < 47 for fault in faults)  # a signal may come an update later
    counts = [sum(fault.kind == kind for fault in faults) for kind in KINDS]
    assert sum(counts) == 40
    assert set(counts) == {5, 6}
    assert plan(updates=2000, every=50, seed=1) != faults == plan(updates=2000, every=50, seed=0)


@pytest.mark.parametrize(
    ("leak", "named"),
    [
        ({}, []),
        ({"memory": 10_000}, ["memory, MB"]),  # 20 MB in 2,000 updates
        ({"handles": 0.01}, ["open handles"]),
        ({"threads": 0.01}, ["threads"]),
        ({"cpu_seconds": 1e-5}, ["processor time of an update, units", "the same with a checkpoint, units"]),
        ({"cpu_seconds": 1e-5, "cpu_unit": 2.5e-7}, []),  # a machine that gets slower
        ({"checkpoint_bytes": 10}, ["checkpoints, kB"]),
    ],
)
def test_what_counts_as_growth(leak, named):
    readings = []
    for update in range(1, 2001):
        grown = {name: getattr(STEADY, name) + update * rate for name, rate in leak.items()}
        reading = dataclasses.replace(STEADY, update=update, other_bytes=4_000 * update, **grown)
        readings.append(dataclasses.replace(reading, handles=int(reading.handles), threads=int(reading.threads)))
    assert [item.quantity.name for item in growth(readings, 2000) if item.is_growth] == named


def test_rows_that_get_longer_are_growth():
    readings = [dataclasses.replace(STEADY, update=n, other_bytes=4_000 * n + n * n) for n in range(1, 2001)]
    assert [item.quantity.name for item in growth(readings, 2000) if item.is_growth] == ["other files, kB per update"]


def test_only_whole_readings_are_read():
    assert parsed('{"update": 1') is None
    assert parsed("warning: update 13") is None
    assert parsed('{"update": 1}') is None
