"""The workflow of the public repository: what can be held without running it."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8")
JOBS = yaml.safe_load(TEXT)["jobs"]


def test_every_job_has_steps_and_an_end():
    for name, job in JOBS.items():
        assert job["steps"][0]["uses"].startswith("actions/checkout@"), name
        assert job["timeout-minutes"] <= 120, name


def test_the_matrix_begins_with_the_python_that_the_project_requires():
    required = re.search(r'requires-python = ">=(.*)"', (ROOT / "pyproject.toml").read_text())[1]
    matrix = JOBS["matrix"]["strategy"]["matrix"]
    assert matrix["python"] == [required, "3.12", "3.13"]
    assert [one["dependencies"] for one in matrix["include"]] == matrix["dependencies"]


def test_files_that_are_named_are_there():
    named = re.findall(r"(?:scripts|docs)/[\w./-]+", TEXT)
    assert len(named) >= 5
    assert [name for name in named if not (ROOT / name).exists()] == []
