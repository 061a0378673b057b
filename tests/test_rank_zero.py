"""Work that one of two real processes (gloo) does for both, and what they decide together."""

import json
from pathlib import Path

import pytest
from processes import launch
from tiny_data import write_pairs


@pytest.fixture(scope="module")
def run_of_two(tiny_models, tmp_path_factory) -> tuple[Path, str]:
    """A folder in which two processes trained for three updates, and what they said."""
    folder = tmp_path_factory.mktemp("rank_zero")
    given = {"model": str(tiny_models["gpt2"]), "data": write_pairs(folder)}
    (folder / "config.json").write_text(json.dumps(given))
    done = launch("tests/rank_zero.py", str(folder))
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


def test_what_is_inspected_is_scored_once(run_of_two):
    """Each process scores its half of 8 responses in each of 3 updates; at all of them (the first, every second, the
    last) 2 prompts are inspected, 2 responses to each, and those the first process alone scores."""
    folder, _ = run_of_two
    scored = [list(map(int, (folder / f"scored_{rank}.txt").read_text().split())) for rank in range(2)]
    assert [sum(counts) for counts in scored] == [3 * (4 + 2 * 2), 3 * 4]


def test_no_process_merges_where_one_lacks_the_memory(run_of_two):
    folder, said = run_of_two
    assert [json.loads((folder / f"copies_{rank}.json").read_text()) for rank in range(2)] == [False, False]
    assert said.count("decoding with the adapters beside the weights, not merged: merged weights take") == 1
