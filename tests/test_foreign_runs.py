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
from rlhf.report.write import write_page

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
    folder = run.parent / "pages"
    folder.mkdir()
    for name in (".page.html.unfinished", "page.html", "page-headline.png", "page-curves.png"):
        (folder / name).symlink_to(key_file)
    main(["report", str(run), "--output", str(folder / "page.html")])
    assert key_file.read_text() == KEY
    assert (folder / "page-curves.png").read_bytes().startswith(b"\x89PNG")


# --- malformed files


def is_written_or_refused(run: Path) -> bool:
    """Whether the page is written, or what is wrong is one line."""
    try:
        write_page([run], run / "page.html")
    except UserError as error:
        return "\n" not in str(error) and len(str(error)) < 1000
    return (run / "page.html").is_file()


GARBAGE = [
    b"",
    b"\xff\xfe\x00\x01",
    b"null",
    b"[]",
    b"7",
    b"{",
    b'"text"',
    b"[" * 100_000,
    b'{"step": "one"}\n{}',
    b"{}",
]
FILES = [
    "metrics.jsonl", "samples.jsonl", "warnings.jsonl", "config.yaml", "done.json", "versions.json", "summary.json",
    "evaluation.json", "responses.jsonl", "rollouts/*/rows.jsonl", "rollouts/*/rollout.safetensors",
]  # fmt: skip


def places(run: Path, name: str) -> list[Path]:
    return sorted(run.glob(name)) if "*" in name else [run / name]


@pytest.mark.parametrize("name", FILES)
def test_garbage_in_any_file_is_one_line_or_left_out(run, name):
    kept = {place: place.read_bytes() if place.exists() else None for place in places(run, name)}
    assert kept
    for content in GARBAGE:
        for place in kept:
            place.write_bytes(content)
        assert is_written_or_refused(run), content[:20]


VALUES = [None, True, -1, 1e999, 10**400, "text", "", [], [1], {}, {"a": {"b": []}}, "\x1b]0;title\x07"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.jsonl", "warnings.jsonl", "rollouts/*/rows.jsonl"])
def test_any_value_of_any_column_is_one_line_or_shown(run, name):
    place = places(run, name)[0]
    lines = place.read_text().splitlines()
    if not lines:
        lines = ['{"step": 1, "name": "kl", "message": "it is high"}']
    columns = list(json.loads(lines[0]))
    for column in (*columns[:6], "surprise"):
        for value in VALUES:
            changed = json.dumps(json.loads(lines[-1]) | {column: value})
            place.write_text("\n".join([*lines[:-1], changed, ""]))
            assert is_written_or_refused(run), (column, value)


def test_a_refusal_on_the_command_line(run, capsys):
    (run / "metrics.jsonl").write_text('{"objective/score": 1, "step": "\\u001b]0;title\\u0007"}\n')
    error = refusal(capsys, "report", str(run))
    assert "metrics.jsonl, row 1: step is '\\x1b]0;title\\x07'; it must be a finite number" in error
    assert "\x1b" not in error


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tensors: tensors.pop("advantages"), "tensor 'advantages' is missing"),
        (lambda tensors: tensors.update(scores=tensors["scores"][:0]), r"tensor 'scores' has shape \(0,\) for 3"),
        (lambda tensors: tensors.update(entropy=tensors["entropy"][0]), "tensor 'entropy' has shape"),
    ],
)
def test_spoiled_tensors_are_named(run, spoil, message):
    file = next(run.glob("rollouts/*/rollout.safetensors"))
    tensors = load_file(file)
    spoil(tensors)
    save_file(tensors, file)
    with pytest.raises(UserError, match=message):
        write_page([run], run / "page.html")


# --- a policy that is none

POLICIES = {
    "{}": "is not as rlhf ppo writes it: base is missing",
    "[]": "it must be a JSON object with base, critic and lora",
    "{": "cannot be read",
    "\x00": "cannot be read",
    '{"base": 1, "critic": "shared", "lora": {}}': "base is 1; it must be a text",
    '{"base": "x", "critic": "both", "lora": {}}': "critic is 'both'; it must be one of shared, detached, adapter",
    '{"base": "x", "critic": "shared", "lora": []}': "lora is []; it must be a mapping",
    '{"base": "x", "critic": "shared", "lora": {"r": "four"}}': "lora.r is 'four'; it must be a whole number",
}


@pytest.mark.parametrize(("content", "message"), POLICIES.items())
def test_a_damaged_description_of_a_policy_is_one_line(tmp_path, capsys, content, message):
    (tmp_path / "policy.json").write_text(content)
    assert message in refusal(capsys, "generate", "--model", str(tmp_path), "--prompt", "a")


def test_a_damaged_policy_in_every_command_that_reads_one(tmp_path, pairs, capsys):
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "policy.json").write_text("{}")
    model = ["--model", str(tmp_path / "policy")]
    out = ["--output_dir", str(tmp_path / "out")]
    assert "base is missing" in refusal(capsys, "generate", *model, "--prompt", "a")
    evaluate = ["evaluate", *model, "--data.eval", pairs, "--rewards", "react_heuristic"]
    assert "base is missing" in refusal(capsys, *evaluate, *out)
    assert "holds no run" in refusal(capsys, "report", str(tmp_path / "policy"))


# --- a config that came with a run

DEMANDS = {
    "push_to_hub": ({"push_to_hub": {"model_id": "me/mine"}}, "asks for push_to_hub, which would send"),
    "server": (
        {"generation": {"engine": "vllm", "mode": "server", "server_url": "http://example.org"}},
        "asks for generation.server_url, which would send",
    ),
    "a reward's address": (
        {"rewards": [{"path": "keywords", "args": {"words": ["a"], "url": "http://example.org"}}]},
        "asks for the reward 'keywords' with url: 'http://example.org', which would send",
    ),
    "a judge": (
        {"rewards": [{"path": "judge", "args": {"model": "m"}}]},
        "asks for the reward 'judge', which would send",
    ),
    "an address deep inside": (
        {"rewards": [{"path": "keywords", "args": {"options": [{"judge": "https://example.org"}]}}]},
        "asks for the reward 'keywords' with judge: 'https://example.org', which would send",
    ),
    "code": ({"rewards": ["os.getcwd"]}, "asks for the reward 'os.getcwd', which would run code"),
    "trust": ({"model": {"name_or_path": "x", "trust_remote_code": True}}, "asks for model.trust_remote_code"),
}
MARKS = ["versions.json", "policy.json", "adapter_config.json", "model.safetensors"]


@pytest.mark.parametrize(("changes", "message"), DEMANDS.values(), ids=DEMANDS)
def test_a_config_that_came_with_a_run_asks_in_vain(tmp_path, changes, message):
    config = {"model": "gpt2", "data": "x.jsonl", "rewards": ["react_heuristic"]} | changes
    run = tmp_path / "run"
    deep = run / "a" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    for place in (deep, run, tmp_path):
        (place / "ppo.yaml").write_text(yaml.safe_dump(config))
    for mark in MARKS:
        (run / mark).write_text("{}")
        for place in (deep, run):
            with pytest.raises(UserError) as caught:
                parse(PPOConfig, [str(place / "ppo.yaml")])
            assert message in str(caught.value)
        (run / mark).unlink()
    parse(PPOConfig, [str(tmp_path / "ppo.yaml")])  # it lies beside no run


def test_a_harmless_config_of_a_run_is_taken(run):
    assert parse(STAGES["ppo"].config_class, ["-c", str(run / "config.yaml")]).num_updates == 4
