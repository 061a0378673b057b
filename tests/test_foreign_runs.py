"""Run folders of somebody else: what leads out of them, what no run has written, what they ask for."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from report_runs import ppo_run
from safetensors.numpy import load_file, save_file

from rlhf.cli import STAGES, main
from rlhf.config import PPOConfig
from rlhf.config.command_line import parse
from rlhf.errors import UserError
from rlhf.policy.files import load_policy, read_description

KEY = "-----BEGIN KEY----- of somebody"


@pytest.fixture(scope="module")
def finished(tiny_models, tmp_path_factory) -> Path:
    return ppo_run(tmp_path_factory.mktemp("real") / "run", tiny_models["gpt2"])


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def key_file(tmp_path) -> Path:
    file = tmp_path / "id_rsa"
    file.write_text(KEY)
    return file


def refusal(capsys, *argv: str) -> str:
    """Run the command, which must end with one line and exit status 2; returns the line."""
    with pytest.raises(SystemExit) as caught:
        main(list(argv))
    error = capsys.readouterr().err
    assert (caught.value.code, error.count("\n")) == (2, 1), error
    return error


# --- links


def make_toy(folder: Path) -> Path:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"update": 1, "reward": 0.5}\n{"update": 2, "reward": 0.7}\n')
    return folder


def test_a_picture_that_is_a_link_is_not_embedded(tmp_path, key_file, capsys):
    toy = make_toy(tmp_path / "toy")
    (toy / "curve.png").symlink_to(key_file)
    assert "curve.png is a link that leads out of the run's folder" in refusal(capsys, "report", str(toy))
    assert not (toy / "report.html").exists()


@pytest.mark.parametrize(
    "link",
    ["metrics.jsonl", "samples.jsonl", "config.yaml", "rollouts", "rollouts/000001", "rollouts/000001/rows.jsonl"],
)
def test_whatever_leads_out_of_the_run_is_refused(run, tmp_path, capsys, link):
    place = run / link.replace("000001", next((run / "rollouts").iterdir()).name)
    elsewhere = tmp_path / "elsewhere"
    place.rename(elsewhere)
    place.symlink_to(elsewhere)
    assert "is a link that leads out of the run's folder" in refusal(capsys, "report", str(run))


def test_the_responses_of_an_evaluation_and_the_stages_of_a_pipeline_too(tmp_path, run, key_file, capsys):
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    (evaluation / "evaluation.json").write_text('{"reward": 1.0}')
    (evaluation / "responses.jsonl").symlink_to(key_file)
    assert "responses.jsonl is a link" in refusal(capsys, "report", str(evaluation))
    pipeline = tmp_path / "pipeline"
    pipeline.mkdir()
    (pipeline / "ppo").symlink_to(run)
    assert "ppo is a link" in refusal(capsys, "report", str(pipeline))


def test_a_link_within_the_run_and_a_link_to_the_run_are_harmless(run, tmp_path):
    (run / "samples.jsonl").rename(run / "kept.jsonl")
    (run / "samples.jsonl").symlink_to("kept.jsonl")
    (tmp_path / "latest").symlink_to(run)
    main(["report", str(tmp_path / "latest")])
    assert (run / "report.html").is_file()


def test_the_report_does_not_write_through_links(run, key_file):
    for name in (".report.html.unfinished", "report.html", "report-headline.png", "report-curves.png"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(key_file)
    main(["report", str(run)])
    assert key_file.read_text() == KEY
    assert (run / "report-curves.png").read_bytes().startswith(b"\x89PNG")


# --- malformed files

GARBAGE = [b"", b"\xff\xfe\x00\x01", b"null", b"[]", b"7", b"{", b'"text"', b"[" * 100_000, b'{"step": "one"}\n{}', b"{}"]
FILES = [
    "metrics.jsonl", "samples.jsonl", "warnings.jsonl", "config.yaml", "done.json", "versions.json", "summary.json",
    "evaluation.json", "responses.jsonl", "rollouts/*/rows.jsonl", "rollouts/*/rollout.safetensors",
]  # fmt: skip


def places(run: Path, name: str) -> list[Path]:
    return sorted(run.glob(name)) if "*" in name else [run / name]


@pytest.mark.parametrize("name", FILES)
def test_garbage_in_any_file_is_one_line_or_left_out(run, name, capsys):
    kept = {place: place.read_bytes() if place.exists() else None for place in places(run, name)}
    assert kept
    for content in GARBAGE:
        for place in kept:
            place.write_bytes(content)
        try:
            main(["report", str(run)])
        except SystemExit as stop:
            error = capsys.readouterr().err
            assert (stop.code, error.count("\n")) == (2, 1), (content[:20], error)
            assert len(error) < 1000


VALUES = [None, True, -1, 1e999, 10**400, "text", "", [], [1], {}, {"a": {"b": []}}, "\x1b]0;title\x07"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.jsonl", "warnings.jsonl", "rollouts/*/rows.jsonl"])
def test_any_value_of_any_column_is_one_line_or_shown(run, name, capsys):
    place = places(run, name)[0]
    lines = place.read_text().splitlines()
    if not lines:
        lines = ['{"step": 1, "name": "kl", "message": "it is high"}']
    columns = list(json.loads(lines[0]))
    for column in (*columns[:12], "surprise"):
        for value in VALUES:
            changed = json.dumps(json.loads(lines[-1]) | {column: value})
            place.write_text("\n".join([*lines[:-1], changed, ""]))
            try:
                main(["report", str(run)])
            except SystemExit as stop:
                error = capsys.readouterr().err
                assert (stop.code, error.count("\n")) == (2, 1), (column, value, error)
                assert "\x1b" not in error
