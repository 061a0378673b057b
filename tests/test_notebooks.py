"""docs/notebooks: committed clean, ready for Colab, linked; and each runs from top to bottom with small settings."""

import ast
import json
import os
import re

import nbformat
import pytest
from documents import ROOT, text_of
from nbclient import NotebookClient
from rewards.render_available import needs_render
from tiny_data import TEXTS, write_jsonl
from tiny_smollm2 import write_smollm2
from transformers import AutoModelForSequenceClassification, AutoTokenizer

NOTEBOOKS = {path.name: path for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))}
LONGEST_CELL = 20
SMALL_PIPELINE = (
    "--sft.num_train_epochs 0.01 --ppo.num_updates 2 --ppo.batch_size 4 --ppo.mini_batch_size 4 "
    "--ppo.micro_batch_size 4 --ppo.sampling.max_new_tokens 8 --evaluation.prompts 2 --evaluation.num_generations 1"
)


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOKS[name], as_version=4)


def code_of(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


# ---------------------------------------------------------------- as they are committed


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_without_outputs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert [cell.id for cell in code_of(notebook) if cell.outputs or cell.execution_count is not None] == []
    assert {key for cell in notebook.cells for key in cell.metadata} <= {"tags"}
    assert [cell.id for cell in code_of(notebook) if len(cell.source.splitlines()) > LONGEST_CELL] == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_colab_needs(name):
    """Kernel and language, its own metadata, how to get the project there, and a cell that acts nowhere else."""
    notebook = read(name)
    assert notebook.metadata.kernelspec == {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert notebook.metadata.language_info.name == "python"
    assert notebook.metadata.colab.name == name
    assert "/content/rlhf" in notebook.cells[0].source
    guard, *guarded = notebook.cells[1].source.splitlines()[2:]
    assert guard == 'if "google.colab" in sys.modules:'
    assert all(line.startswith("    %") for line in guarded)
    assert "%pip install --quiet -e" in guarded[-1]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_links_lead_somewhere(name):
    for cell in read(name).cells:
        for link in re.findall(r"\]\(([^)#]+)", cell.source if cell.cell_type == "markdown" else ""):
            assert (NOTEBOOKS[name].parent / link).is_file(), link
    for page, prefix in (("README.md", "docs/notebooks/"), ("docs/README.md", "notebooks/")):
        assert f"]({prefix}{name})" in text_of(page)


# ---------------------------------------------------------------- as they run


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a notebook in a folder of its own with other parameters; returns it, and the values of some names in it."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for variable in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))

    def run(name: str, parameters: dict, look_at: list[str]) -> tuple[nbformat.NotebookNode, list]:
        notebook = read(name)
        [cell] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
        assert parameters.keys() <= assigned(cell.source)
        cell.source += "".join(f"\n{key} = {value!r}" for key, value in parameters.items())
        told = nbformat.v4.new_code_cell(f"import json\nprint(json.dumps([{', '.join(look_at)}]))")
        notebook.cells.append(told)
        folder = {"metadata": {"path": str(tmp_path)}}
        NotebookClient(notebook, timeout=300, kernel_name="python3", resources=folder).execute()
        return notebook, json.loads(told.outputs[0].text)

    return run


def assigned(source: str) -> set[str]:
    """The names that top-level statements assign to."""
    return {target.id for node in ast.parse(source).body if isinstance(node, ast.Assign) for target in node.targets}


def shown(notebook: nbformat.NotebookNode, kind: str) -> list[str]:
    """All outputs of a MIME type, in their order."""
    outputs = [output for cell in code_of(notebook) for output in cell.outputs]
    return [output.data[kind] for output in outputs if kind in output.get("data", {})]


def said(notebook: nbformat.NotebookNode) -> str:
    """What it printed."""
    return "".join(output.get("text", "") for cell in code_of(notebook) for output in cell.outputs)


@pytest.mark.slow
def test_the_classic_loop(run, tiny_models, tmp_path):
    model, classifier = tiny_models["gpt2"], tmp_path / "classifier"
    tokenizer = AutoTokenizer.from_pretrained(model)
    judge = AutoModelForSequenceClassification.from_pretrained(
        model, num_labels=2, id2label={0: "NEGATIVE", 1: "POSITIVE"}, pad_token_id=tokenizer.pad_token_id
    )
    for part in (judge, tokenizer):
        part.save_pretrained(classifier)
    reviews = write_jsonl(tmp_path / "reviews.jsonl", [{"text": text} for text in TEXTS * 3])
    parameters = {
        "MODEL": str(model), "CLASSIFIER": str(classifier), "REVIEWS": reviews, "UPDATES": 3, "BATCH_SIZE": 4,
        "LEARNING_RATE": 1e-3, "OUTPUT": str(tmp_path / "sentiment"),
    }  # fmt: skip
    looked_at = ["history[-1]['ppo/mean_scores']", "scores", "len(history)", "len(table)", "len(set(queries['query']))"]
    notebook, (last, scores, updates, rows, distinct) = run("classic_loop.ipynb", parameters, looked_at)
    assert last == pytest.approx(sum(scores) / 4, rel=1e-5)
    assert (updates, rows) == (3, 16)
    assert distinct > 1
    assert len(shown(notebook, "image/png")) == 1
    stats, before_after, means = shown(notebook, "text/html")
    assert "objective/kl" in stats
    assert "score before" in before_after
    assert "median" in means
    assert (tmp_path / "sentiment" / "model.safetensors").is_file()


@needs_render
@pytest.mark.long
def test_react(run, tmp_path):
    for name in ("configs", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    write_smollm2(tmp_path)
    look_at = ["means", "[pair.picked for pair in pairs]", "len(curve)"]
    notebook, (means, picked, updates) = run("react_ppo.ipynb", {"SETTINGS": SMALL_PIPELINE.split()}, look_at)
    assert json.loads((tmp_path / "runs/quickstart/summary.json").read_text()) == means
    assert len(picked) == 2
    assert updates == 2
    assert len(shown(notebook, "image/png")) == 1
    asked_for, *_, numbers, side_by_side = shown(notebook, "text/html")  # between them the tables of the stages
    assert 'sandbox=""' in asked_for
    assert "react_match" in numbers
    assert side_by_side.count("<td") == 2 * len(picked)
    assert "react_full     weight 1\n" in said(notebook)


@pytest.mark.long
def test_the_toys(run):
    parameters = {
        "SEEDS": 2, "BANDIT_UPDATES": 60, "DYNAMICS_UPDATES": 60, "REFERENCE_STEPS": 5, "LM_UPDATES": 2,
    }  # fmt: skip
    look_at = ["learned.iloc[-1].tolist()", "distance.tolist()", "list(outcome.runs)"]
    notebook, (arms, distance, runs) = run("toys.ipynb", parameters, look_at)
    assert max(arms) == arms[2] > 0.9  # the arm that pays .8
    assert max(distance) < 0.1  # from the closed form
    assert runs == ["with KL penalty", "without KL penalty"]
    assert len(shown(notebook, "image/png")) == 6
    assert "KL reached its band" in said(notebook)
