"""docs/guide/ppo-in-five-steps.md: its links, snippets and commands."""

import ast
import doctest
import re
import shlex
from pathlib import Path

import pytest
import torch
from equivalent_mutants import EQUIVALENT
from mutants import MODULES, mutants, mutated_source
from mutate import read

from rlhf.toy.cli import main

ROOT = Path(__file__).resolve().parent.parent
TUTORIAL = ROOT / "docs" / "guide" / "ppo-in-five-steps.md"
TEXT = TUTORIAL.read_text()
FENCES = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for language, body in FENCES if language == "bash" for line in body.splitlines()]
# A shorter run of the same command; what the full one reaches is tested beside each toy.
SHORTER = {
    "bandit": ["--seeds", "2", "--updates", "5", "--pulls", "80"],
    "dynamics": ["--seeds", "2", "--updates", "10"],
    "contextual": ["--seeds", "2", "--updates", "5"],
    "tiny-lm": ["--updates", "2", "--reference_steps", "5"],
    "figures": [],
}


def test_snippets_print_what_they_say() -> None:
    source = "\n".join(body for language, body in FENCES if language == "pycon")
    examples = doctest.DocTestParser().get_doctest(source, {}, TUTORIAL.name, str(TUTORIAL), 0)
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(examples)
    assert result.attempted > 15
    assert result.failed == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, toys, name, *options = shlex.split(command)
    assert (program, toys) == ("rlhf", "toy")
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    main([name, *options, *SHORTER[name], "--threads", "1"])
    torch.set_num_threads(threads)
    assert list((tmp_path / "runs" / "toy" / name).glob("*.png"))


def test_every_toy_is_walked_through() -> None:
    assert {shlex.split(command)[2] for command in COMMANDS} == set(SHORTER)


def test_the_documented_mutants_add_up() -> None:
    """A row is what the script found when it was last run on that module."""
    rows, survivors = read(ROOT / "docs" / "dev" / "mutants.md")
    assert set(rows) <= set(MODULES)
    for module, row in rows.items():
        total, killed, excused, survived = map(int, re.findall(r" (\d+) \|", row))
        assert killed + excused + survived == total, module
        assert len(survivors.get(module, [])) == excused + survived, module


def test_every_mutant_changes_its_module() -> None:
    for module in MODULES:
        original = ast.unparse(ast.parse((ROOT / "rlhf" / module).read_text()))
        assert all(mutated_source(mutant) != original for mutant in mutants(module)[::5])


def test_excused_mutants_are_mutants() -> None:
    everything = {(m.module, m.function, m.change) for module in MODULES for m in mutants(module)}
    assert set(EQUIVALENT) <= everything


def test_links_point_at_the_very_lines() -> None:
    links = re.findall(r"\[`(\w+)`\]\(\.\./\.\./(rlhf/[\w/]+\.py)#L(\d+)-L(\d+)\)", TEXT)
    assert len(links) >= 10
    for name, path, first, last in links:
        lines = (ROOT / path).read_text().splitlines()
        body = lines[int(first) - 1 : int(last)]
        assert body[0].startswith(f"def {name}("), f"{path}#L{first} is {body[0]!r}, not {name}"
        assert body[-1].startswith("    "), f"{path}#L{last} is {body[-1]!r}, not the end of {name}"
        assert not any(line.startswith(("def ", "class ")) for line in body[1:]), f"{path}#L{last} is beyond {name}"
        following = [line for line in lines[int(last) :] if line]
        assert not following or not following[0].startswith(" "), f"{path}#L{last} is not the end of {name}"
