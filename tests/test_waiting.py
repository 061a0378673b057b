"""How threads wait beside other processes: what is set, when, and what is left alone."""

import os
import subprocess
import sys

import psutil
import pytest

from rlhf.parallel.waiting import CHOSEN_BY_HAND, cores_in_use, wait_beside_others

CORES = len(psutil.cpu_percent(0.0, percpu=True))


@pytest.fixture
def look(monkeypatch):
    """Makes every core look used by so many percent, and torch as if it were not loaded."""
    for name in CHOSEN_BY_HAND:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "torch")

    def used(*percent: float) -> None:
        monkeypatch.setattr(psutil, "cpu_percent", lambda seconds, percpu: list(percent))

    return used


def test_threads_sleep_where_others_compute(look, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2}, raising=False)
    look(40.0, 100.0, 5.0)  # the busy core is none of ours
    assert cores_in_use() == pytest.approx(0.45)
    wait_beside_others()
    assert "OMP_WAIT_POLICY" not in os.environ
    look(40.0, 0.0, 90.0)
    wait_beside_others()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize("name", CHOSEN_BY_HAND)
def test_what_the_user_says_stays(look, monkeypatch, name):
    look(*[100.0] * CORES)
    monkeypatch.setenv(name, "1")
    wait_beside_others()
    assert {name: os.environ.get(name) for name in CHOSEN_BY_HAND if name in os.environ} == {name: "1"}


def test_it_is_too_late_once_torch_is_there(look, monkeypatch):
    look(*[100.0] * CORES)
    monkeypatch.setitem(sys.modules, "torch", object())
    wait_beside_others()
    assert "OMP_WAIT_POLICY" not in os.environ


def test_a_stage_looks_before_torch_is_loaded(tmp_path):
    """The command itself, up to the import of its stage, with a meter that shows a busy machine."""
    script = (
        "import sys, os, psutil, importlib\n"
        "psutil.cpu_percent = lambda seconds, percpu: [100.0] * 1024\n"
        "from rlhf import cli\n"
        "def stage(name):\n"
        "    print('torch' in sys.modules, os.environ.get('OMP_WAIT_POLICY'))\n"
        "    sys.exit()\n"
        "cli.quiet_libraries = lambda: stage('score')\n"
        "cli.main(['score', '--input', 'a', '--output', 'b', '--rewards', 'length'])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in CHOSEN_BY_HAND}
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert found.stdout == "False PASSIVE\n", found.stderr


def test_the_meter_sees_a_busy_neighbor():
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as neighbor:
        try:
            assert max(cores_in_use() for _ in range(20)) > 0.5
        finally:
            neighbor.kill()
