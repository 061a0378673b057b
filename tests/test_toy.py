"""What all toys share: light imports, the command line, seeds, files."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rlhf.errors import UserError
from rlhf.toy import report
from rlhf.toy.cli import TOYS, main, parser
from rlhf.toy.config import BanditConfig, ContextualConfig, DynamicsConfig, TinyLMConfig
from rlhf.toy.seeds import choose, generators, normal, per_run, uniform

HEAVY = ("transformers", "trl", "peft", "matplotlib")


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after running the code."""
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(finished.stdout.splitlines()[-1].split())


def test_the_maths_and_the_toys_load_neither_transformers_nor_matplotlib() -> None:
    toys = ", ".join(f"rlhf.toy.{module}" for toy, (module, _) in TOYS.items() if toy != "figures")  # that one draws
    assert not loaded_by(f"import rlhf.maths.losses, rlhf.toy, {toys}") & set(HEAVY)


def test_help_loads_not_even_torch() -> None:
    assert not loaded_by("from rlhf.toy.cli import parser; parser().format_help()") & {*HEAVY, "torch"}


@pytest.mark.parametrize("toy", TOYS)
def test_every_toy_has_help_with_its_defaults(toy: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as finished:
        main([toy, "--help"])
    assert finished.value.code == 0
    shown = capsys.readouterr().out
    assert f"runs/toy/{toy}" in shown
    assert "--output_dir" in shown


def test_unknown_options_and_toys_are_refused() -> None:
    for argv, named in ((["bandit", "--sed", "1"], "--sed"), (["bandits"], "bandits"), ([], "toy")):
        with pytest.raises(UserError, match=named):
            main(argv)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["bandit", "--seeds", "0"], "seeds is 0; it must be at least 1"),
        (["bandit", "--kl_coefs", "[0.1,-1]"], "kl_coefs is (0.1, -1.0); it must be positive"),
        (["bandit", "--pulls", "4"], "pulls is 4; it must be at least 8, one update"),
        (["contextual", "--batch_size", "1"], "batch_size is 1; it must be at least 2, to whiten advantages"),
        (["dynamics", "--kl_target", "0"], "kl_target is 0.0; it must be positive"),
        (["tiny-lm", "--batch_size", "100"], "batch_size is 100; it must be a multiple of mini_batch_size = 64"),
        (["tiny-lm", "--hidden", "30"], "hidden is 30; it must be a multiple of heads = 4"),
    ],
)
def test_bad_settings_give_one_clear_line(argv: list[str], message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        main(argv)


def test_defaults_of_the_command_line_are_those_of_the_configs() -> None:
    for toy, (_, config_class) in TOYS.items():
        assert config_class(**vars(parser().parse_args([toy])[toy])) == config_class()


def test_a_seed_draws_the_same_numbers_alone_and_in_company() -> None:
    for draw in (uniform, normal):
        together, alone = draw(generators(4, 3), 5, 2), draw(generators(6, 1), 5, 2)
        assert torch.equal(together[2:], alone)


def test_choose_samples_the_distribution() -> None:
    probabilities = torch.tensor([[0.5, 0.0, 0.3, 0.2], [0.0, 0.0, 0.0, 1.0]])
    actions = choose(probabilities, uniform(generators(0, 2), 20_000))
    shares = torch.nn.functional.one_hot(actions, 4).double().mean(1)
    torch.testing.assert_close(shares, probabilities.double(), atol=0.015, rtol=0)
    assert (shares[0, 1], shares[1, 3]) == (0, 1)  # exactly: what is impossible never happens
    assert choose(probabilities[:1], torch.tensor([[0.0, 0.4999, 0.5, 0.9999]])).tolist() == [[0, 0, 2, 3]]


def test_per_run_keeps_statistics_within_a_run() -> None:
    x = torch.tensor([[1.0, 2.0], [10.0, 30.0]])
    assert per_run(lambda run, scale: scale * run.mean(), scale=2.0)(x).tolist() == [3, 40]


def test_tables_are_aligned() -> None:
    shown = report.table(["name", "value"], [("a", 0.5), ("longer", "text")])
    assert shown.splitlines() == ["name    value", "------  -----", "a       0.500", "longer   text"]


SMALL = {
    "bandit": ["--pulls", "16", "--updates", "2", "--seeds", "2"],
    "contextual": ["--updates", "2", "--seeds", "2"],
    "dynamics": ["--updates", "4", "--seeds", "2"],
    "tiny-lm": ["--updates", "2", "--reference_steps", "2", "--batch_size", "64", "--digits", "3"],
}
PICTURES = {
    "bandit": {"bandit_methods.png", "bandit_closed_form.png"},
    "contextual": {"contextual.png"},
    "dynamics": {"dynamics.png", "dynamics_sweeps.png"},
    "tiny-lm": {"tiny_lm_hack.png", "tiny_lm_tokens.png"},
}
REQUIRED = {
    "bandit": "total_variation",
    "contextual": "gap_closed",
    "dynamics": "story",
    "tiny-lm": "solve_rate",
}


@pytest.mark.parametrize("toy", SMALL)
def test_a_toy_leaves_its_files_and_equal_seeds_give_equal_results(
    toy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("one", "two"):
        main([toy, *SMALL[toy], "--seed", "3", "--threads", "1", "--output_dir", str(tmp_path / folder)])
    one = tmp_path / "one"
    assert {path.name for path in one.glob("*.png")} == PICTURES[toy]
    records = [json.loads(line) for line in (one / "metrics.jsonl").read_text().splitlines()]
    assert len(records) > 1
    assert (one / "metrics.jsonl").read_bytes() == (tmp_path / "two" / "metrics.jsonl").read_bytes()
    summary = json.loads((one / "summary.json").read_text())
    assert REQUIRED[toy] in summary
    assert summary["config"]["seed"] == 3
    assert str(one) in capsys.readouterr().out


def test_figures_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["figures", "--threads", "1", "--output_dir", str(tmp_path)])
    pictures = {path.name: path.stat().st_size for path in tmp_path.glob("*.png")}
    assert set(pictures) == {"clip.png", "kl_penalty.png", "kl_estimators.png", "value_head.png", "five_steps.png"}
    assert all(size < 150_000 for size in pictures.values())


def test_the_configs_are_frozen() -> None:
    for config in (BanditConfig(), ContextualConfig(), DynamicsConfig(), TinyLMConfig()):
        with pytest.raises(AttributeError):
            config.seed = 1  # type: ignore[misc]
